//! Captures of real traffic: pings whole and in fragments, HTTP, DNS, iperf3, record route,
//! unreachable ports, and what a link says by itself, over both IP versions.

use pcap_file::pcap::PcapReader;

/// Raw frames.
pub(crate) struct Corpus(pub(crate) Vec<Vec<u8>>);

impl Corpus {
    pub(crate) fn read() -> Self {
        let file = &include_bytes!("../corpus/traffic.pcap")[..];
        let mut reader = PcapReader::new(file).expect("a capture");
        let mut frames = Vec::new();
        while let Some(packet) = reader.next_packet() {
            frames.push(packet.expect("a frame").data.into_owned());
        }
        assert!(
            frames.len() >= 100,
            "only {} frames were captured",
            frames.len()
        );
        Self(frames)
    }
}
