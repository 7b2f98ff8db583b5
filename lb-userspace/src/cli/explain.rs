//! `evenkeel explain`: where would a packet go, and why?

use std::{fmt::Write as _, io::Read as _, path::PathBuf};

use anyhow::Context as _;
use clap::Args;

use super::{
    ADMIN_SOCKET, Answer, change,
    output::{self, plain},
};
use crate::admin::{
    client::Client,
    proto::explain::{Explanation, Explanations, Flag, LONGEST, Packet, Protocol, Request, Sent},
};

/// Show where a packet would go now, and why: asked of the kernel's program itself
///
/// A packet like the one that is described is run through the program, over the tables and the
/// flows that are there, and nothing is counted, remembered or sent. This host decides the same
/// packet by the tables that it reads back; where the two differ, that is a fault, or somebody
/// changed the tables, and it is told.
///
/// Without flags, a TCP packet stands for two: the one that opens the connection, and one of an
/// established connection.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sudo evenkeel explain 'tcp 203.0.113.9:51000 -> 198.51.100.10:80'
  sudo evenkeel explain --ack 'tcp [2001:db8::9]:51000 -> [2001:db8::10]:80'
  sudo evenkeel explain --length 1500 'udp 203.0.113.9:51000 -> 198.51.100.10:53'
  sudo evenkeel explain 'icmp 203.0.113.9 -> 198.51.100.10'
  sudo evenkeel explain --json - < packets    # one a line, at most 10,000

A packet of a client goes from its address to the VIP; one of a backend in mode 'nat' or 'snat', from
the backend's address to what the backend takes for its client.

Exit codes:
  0  forwarded, or answered; of TCP without flags: a new connection would be
  1  not forwarded; of several packets: one of them
  2  the controller cannot be asked, or wrong usage
  3  the kernel and this host contradict each other")]
#[expect(
    clippy::struct_excessive_bools,
    reason = "one for each flag of a segment"
)]
pub(super) struct Arguments {
    /// The packets, or - for one a line on standard input
    #[arg(required = true, value_name = "PACKET")]
    packets: Vec<String>,
    /// The interface that they come in by; the first configured one otherwise
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// A VLAN tag that they have; twice for two, the outer one first
    #[arg(long, value_name = "ID")]
    vlan: Vec<u16>,
    /// TCP: it opens a connection
    #[arg(long)]
    syn: bool,
    /// TCP: it acknowledges, as all but the first of a connection do
    #[arg(long)]
    ack: bool,
    /// TCP: it ends its direction
    #[arg(long)]
    fin: bool,
    /// TCP: it breaks the connection off
    #[arg(long)]
    rst: bool,
    /// The length of the IP packet in bytes; as short as can be otherwise
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(1..=i64::from(LONGEST)))]
    length: Option<u16>,
    /// The controller's admin socket
    #[arg(long, value_name = "PATH", env = "EVENKEEL_SOCKET", default_value = ADMIN_SOCKET)]
    socket: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Asks and shows.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    let request = Request {
        packets: packets(arguments)?,
        interface: arguments.interface.clone(),
    };
    let client = Client::new(&arguments.socket);
    // Also where it is refused, nothing was looked at: code 1 is for a packet that would not be
    // forwarded.
    let told = change::block_on(async { client.explain(&request).await })??;
    if arguments.json {
        change::print_json(&told)?;
    } else {
        output::print(&text(&told))?;
    }
    let answer = judge(&told.explanations, flags(arguments).is_empty());
    if answer == Answer::Contradiction {
        output::complain(
            "THE KERNEL AND THIS HOST CONTRADICT EACH OTHER: a fault, or somebody changed the \
             kernel's tables; 'evenkeel status' compares them",
        );
    }
    Ok(answer)
}

/// What the explanations come to. Where no flags were given, what a new connection would get counts
/// for TCP.
fn judge(explanations: &[Explanation], both: bool) -> Answer {
    let counts = |e: &&Explanation| !both || e.packet.protocol != Protocol::Tcp || e.packet.opens();
    if explanations.iter().any(|e| !e.agree) {
        Answer::Contradiction
    } else if explanations.iter().filter(counts).all(|e| e.forwarded) {
        Answer::Yes
    } else {
        Answer::No
    }
}

fn flags(arguments: &Arguments) -> Vec<Flag> {
    let given = [
        (arguments.syn, Flag::Syn),
        (arguments.ack, Flag::Ack),
        (arguments.fin, Flag::Fin),
        (arguments.rst, Flag::Rst),
    ];
    let given = given.into_iter().filter(|(given, _)| *given);
    given.map(|(_, flag)| flag).collect()
}

fn packets(arguments: &Arguments) -> anyhow::Result<Vec<Packet>> {
    let mut texts = Vec::new();
    for text in &arguments.packets {
        if text == "-" {
            let mut all = String::new();
            std::io::stdin()
                .read_to_string(&mut all)
                .context("read packets from standard input")?;
            let lines = all.lines().map(str::trim);
            texts.extend(lines.filter(|line| !line.is_empty()).map(str::to_owned));
        } else {
            texts.push(text.clone());
        }
    }
    let flags = flags(arguments);
    let mut packets = Vec::new();
    for text in texts {
        let packet: Packet = text.parse().map_err(anyhow::Error::msg)?;
        let packet = Packet {
            length: arguments.length,
            vlans: arguments.vlan.clone(),
            ..packet
        };
        match (packet.protocol, &flags[..]) {
            (Protocol::Tcp, []) => packets.extend([Flag::Syn, Flag::Ack].map(|flag| Packet {
                flags: vec![flag],
                ..packet.clone()
            })),
            (Protocol::Tcp, flags) => packets.push(Packet {
                flags: flags.to_vec(),
                ..packet
            }),
            (_, []) => packets.push(packet),
            (protocol, _) => anyhow::bail!("{protocol} has no flags: they are for tcp alone"),
        }
    }
    Ok(packets)
}

fn text(told: &Explanations) -> String {
    let all = told.explanations.iter().map(one);
    all.collect::<Vec<_>>().join("\n")
}

/// One explanation.
fn one(told: &Explanation) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{} by {}{}", told.packet, told.interface, kind(told));
    let _ = writeln!(text, "  {}", plain(&outcome(told)));
    for step in &told.why {
        let _ = writeln!(text, "  - {}", plain(step));
    }
    if told.agree {
        let generation = told.generation;
        let _ = writeln!(
            text,
            "  the kernel and this host agree, by generation {generation}"
        );
    } else {
        let _ = writeln!(text, "  THE KERNEL AND THIS HOST DIFFER:");
        for difference in &told.differences {
            let _ = writeln!(text, "  ! {}", plain(difference));
        }
    }
    text
}

/// What the flags of a TCP segment mean.
fn kind(told: &Explanation) -> &'static str {
    match told.packet.protocol {
        Protocol::Tcp if told.packet.opens() => " (opens a connection)",
        Protocol::Tcp => " (of a connection that is established)",
        Protocol::Udp | Protocol::Icmp => "",
    }
}

/// Where it goes, in a line.
fn outcome(told: &Explanation) -> String {
    let reason = told.reason.as_deref().unwrap_or("no reason");
    let of = told
        .service
        .as_ref()
        .map_or_else(String::new, |service| format!(" of service {service}"));
    match (&told.sent, &told.backend, told.forwarded) {
        (Some(sent), Some(backend), true) if told.reason.is_none() && is_to(sent, told) => {
            format!("GOES TO {} ({}){of}", backend.name, backend.address)
        }
        (Some(sent), Some(backend), true) => format!(
            "IS ANSWERED BY {}{of}: leaves as {} -> {} by {}",
            backend.name, sent.source, sent.destination, sent.interface
        ),
        (Some(_), None, true) => format!("IS ANSWERED HERE{of} ({reason})"),
        _ => match told.verdict.as_str() {
            "drop" => format!("IS DROPPED{of} ({reason})"),
            "pass" => format!("GOES TO THE HOST'S OWN STACK{of} ({reason})"),
            _ => format!("IS SENT BACK{of} ({reason})"),
        },
    }
}

/// Whether it goes to a backend, not to a client.
fn is_to(sent: &Sent, told: &Explanation) -> bool {
    sent.mtu.is_some() && told.backend.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::proto::explain::Backend;

    fn told(text: &str, flags: &[Flag]) -> Explanation {
        let packet: Packet = text.parse().unwrap();
        Explanation {
            packet: Packet {
                flags: flags.to_vec(),
                ..packet
            },
            interface: "eth0".to_owned(),
            forwarded: true,
            verdict: "transmit".to_owned(),
            reason: None,
            generation: 7,
            service: Some("web".to_owned()),
            mode: Some("dsr".to_owned()),
            hash: None,
            slot: None,
            flow: None,
            backend: Some(Backend {
                name: "b1".to_owned(),
                address: "10.0.0.11".parse().unwrap(),
                health: Some("up".to_owned()),
                out_of_ring: None,
            }),
            sent: Some(Sent {
                interface: "eth0".to_owned(),
                mac: "02:00:00:00:00:01".to_owned(),
                from_mac: "02:00:00:00:00:02".to_owned(),
                source: "203.0.113.9:51000".to_owned(),
                destination: "198.51.100.10:80".to_owned(),
                outer: None,
                length: 40,
                mtu: Some(1500),
            }),
            why: vec!["because".to_owned()],
            agree: true,
            differences: Vec::new(),
        }
    }

    const TCP: &str = "tcp 203.0.113.9:51000 -> 198.51.100.10:80";

    #[test]
    fn an_explanation_says_where_and_why() {
        let text = one(&told(TCP, &[Flag::Syn]));
        assert_eq!(
            text,
            "tcp 203.0.113.9:51000 -> 198.51.100.10:80 SYN by eth0 (opens a connection)\n  \
             GOES TO b1 (10.0.0.11) of service web\n  - because\n  \
             the kernel and this host agree, by generation 7\n"
        );
    }

    #[test]
    fn a_contradiction_is_said_aloud_and_has_a_code_of_its_own() {
        let mut all = vec![told(TCP, &[Flag::Syn]), told(TCP, &[Flag::Ack])];
        assert_eq!(judge(&all, true), Answer::Yes);
        // What an established one gets counts where it was asked about.
        all[1].forwarded = false;
        assert_eq!(judge(&all, true), Answer::Yes);
        assert_eq!(judge(&all, false), Answer::No);
        all[0].forwarded = false;
        assert_eq!(judge(&all, true), Answer::No);
        all[1].agree = false;
        all[1].differences = vec!["verdict: x in the kernel, y on the host".to_owned()];
        assert_eq!(judge(&all, true), Answer::Contradiction);
        let shown = text(&Explanations { explanations: all });
        assert!(shown.contains("DIFFER:\n  ! verdict: x"), "{shown}");
    }
}
