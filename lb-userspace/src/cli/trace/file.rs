//! A file of packets, as Wireshark reads it.

use std::{borrow::Cow, fs, io::BufWriter, path::Path, time::Duration};

use anyhow::Context as _;
use pcap_file::{
    DataLink,
    pcapng::{
        PcapNgWriter,
        blocks::{
            enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption},
            interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption},
        },
    },
};

use super::words;
use crate::admin::proto::trace::{Begun, Decision};

/// Times are in nanoseconds.
const NANOSECONDS: u8 = 9;
/// A packet that came in, in the flags of its block.
const INBOUND: u32 = 1;
/// One that left.
const OUTBOUND: u32 = 2;

/// The file.
pub(super) struct File {
    writer: PcapNgWriter<BufWriter<fs::File>>,
    snaplen: u32,
    /// The interfaces that it knows, by index, in the order of their numbers there.
    interfaces: Vec<u32>,
}

impl File {
    /// Makes the file.
    pub(super) fn create(path: &Path, snaplen: u32, begun: &Begun) -> anyhow::Result<Self> {
        let file =
            fs::File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        let mut file = Self {
            writer: PcapNgWriter::new(BufWriter::new(file))?,
            snaplen,
            interfaces: Vec::new(),
        };
        for (index, name) in &begun.interfaces {
            file.interface(*index, name)?;
        }
        file.flush()?;
        Ok(file)
    }

    /// The number of an interface in the file.
    fn interface(&mut self, index: u32, name: &str) -> anyhow::Result<u32> {
        if let Some(number) = self.interfaces.iter().position(|known| *known == index) {
            return Ok(number as u32);
        }
        self.writer.write_pcapng_block(InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: self.snaplen,
            options: vec![
                InterfaceDescriptionOption::IfName(Cow::Borrowed(name)),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ],
        })?;
        self.interfaces.push(index);
        Ok(self.interfaces.len() as u32 - 1)
    }

    /// Writes a packet as it came in and, where it left, as it left.
    pub(super) fn write(&mut self, decision: &Decision) -> anyhow::Result<()> {
        let comment = words(decision);
        if let Some(frame) = &decision.frame {
            let by = self.interface(decision.ingress, &decision.interface)?;
            self.packet(decision, by, (frame, decision.length), (INBOUND, &comment))?;
        }
        if let (Some(left), Some(length), Some(index)) =
            (&decision.left, decision.left_length, decision.left_by)
        {
            let name = if index == decision.ingress {
                decision.interface.clone()
            } else {
                format!("interface {index}")
            };
            let by = self.interface(index, &name)?;
            self.packet(decision, by, (left, length), (OUTBOUND, &comment))?;
        }
        self.flush()
    }

    fn packet(
        &mut self,
        decision: &Decision,
        by: u32,
        (frame, length): (&str, u32),
        (direction, comment): (u32, &str),
    ) -> anyhow::Result<()> {
        let data = hex::decode(frame).context("the controller's answer is not understood")?;
        self.writer.write_pcapng_block(EnhancedPacketBlock {
            interface_id: by,
            timestamp: Duration::from_micros(decision.at_us),
            original_len: length,
            data: Cow::Owned(data),
            options: vec![
                EnhancedPacketOption::Comment(Cow::Borrowed(comment)),
                EnhancedPacketOption::Flags(direction),
            ],
        })?;
        Ok(())
    }

    /// Whoever ends this at any time finds a whole file.
    fn flush(&mut self) -> anyhow::Result<()> {
        std::io::Write::flush(self.writer.get_mut()).context("write the packets")
    }
}

#[cfg(test)]
mod tests {
    use pcap_file::pcapng::{Block, PcapNgReader};

    use super::{super::tests::decision, *};

    #[test]
    fn a_packet_stands_there_twice_with_its_decision() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pcapng");
        let begun = Begun {
            interfaces: vec![(2, "eth0".to_owned())],
        };
        let mut file = File::create(&path, 256, &begun).unwrap();
        file.write(&decision()).unwrap();
        let elsewhere = Decision {
            left_by: Some(7),
            ..decision()
        };
        file.write(&elsewhere).unwrap();
        let mut reader = PcapNgReader::new(fs::File::open(&path).unwrap()).unwrap();
        let (mut interfaces, mut packets) = (0, Vec::new());
        while let Some(block) = reader.next_block() {
            match block.unwrap() {
                Block::InterfaceDescription(_) => interfaces += 1,
                Block::EnhancedPacket(packet) => packets.push(packet.into_owned()),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((interfaces, packets.len()), (2, 4));
        let by: Vec<u32> = packets.iter().map(|packet| packet.interface_id).collect();
        assert_eq!(by, [0, 0, 0, 1]);
        for (n, packet) in packets.iter().enumerate() {
            assert_eq!(packet.data[0], (n % 2) as u8);
            let direction = if n % 2 == 0 { INBOUND } else { OUTBOUND };
            assert!(
                packet
                    .options
                    .contains(&EnhancedPacketOption::Flags(direction))
            );
            let told = packet.options.iter().any(
                |option| matches!(option, EnhancedPacketOption::Comment(c) if c.contains("to b1")),
            );
            assert!(told, "{packet:?}");
        }
    }
}
