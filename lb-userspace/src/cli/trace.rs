//! `evenkeel trace` and `evenkeel capture`: decisions as they are made, and the packets that they are
//! about.

mod file;

use std::{fmt::Write as _, net::IpAddr, ops::ControlFlow, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use self::file::File;
use super::{
    ADMIN_SOCKET, Answer, change,
    output::{self, plain},
};
use crate::admin::{
    client::Client,
    proto::{
        explain::Protocol,
        flows::prefix,
        trace::{Decision, Ended, FASTEST, LONGEST_S, Line, Outcome, Request},
    },
};

/// Which decisions.
#[derive(Debug, Args)]
struct Filter {
    /// Only those of this service, or of this backend of it
    #[arg(value_name = "SERVICE[/BACKEND]")]
    of: Option<String>,
    /// Only those of clients with this address, or within this prefix
    #[arg(long, value_name = "PREFIX", value_parser = client)]
    client: Option<String>,
    /// Only those of packets to or from this VIP
    #[arg(long, value_name = "ADDRESS")]
    vip: Option<IpAddr>,
    /// Only those of packets that come from or to this port
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Only those of this protocol
    #[arg(long, value_name = "NAME", value_enum)]
    protocol: Option<Carries>,
    /// Only those of packets that this became of; may be given more than once
    #[arg(long, value_name = "WHAT", value_enum)]
    verdict: Vec<Became>,
    /// Only those for which this reason was counted, as 'status' names it; may be given more than once
    #[arg(long, value_name = "NAME")]
    reason: Vec<String>,
    /// End after so many
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after so long, at most 10m
    #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = span)]
    span: Duration,
    /// The controller's admin socket
    #[arg(long, value_name = "PATH", env = "EVENKEEL_SOCKET", default_value = ADMIN_SOCKET)]
    socket: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Carries {
    Tcp,
    Udp,
    Icmp,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Became {
    Sent,
    Passed,
    Dropped,
}

/// Show decisions as the kernel makes them, with reasons
///
/// Another program forwards meanwhile, which decides the same and tells what the filter asks for;
/// each packet costs more then. The plain one is back when enough was told, the time is over or this
/// command ends. One can watch at a time.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sudo evenkeel trace web --count 20
  sudo evenkeel trace web/b2 --client 203.0.113.0/24 --for 1m
  sudo evenkeel trace --verdict dropped --rate 10
  sudo evenkeel trace --reason denied --reason limited --json

A line says when, what came in from where to where, and what became of it and why. --json prints an
object for each, one a line.

Exit codes:
  0  decisions were told
  1  there were none such
  2  the controller cannot be asked or refused, or wrong usage")]
pub(super) struct Trace {
    #[command(flatten)]
    filter: Filter,
    /// At most so many a second; how many were left out is told in the end
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=i64::from(FASTEST)))]
    rate: u32,
    /// Print JSON, an object a line
    #[arg(long)]
    json: bool,
}

/// Write packets with the decisions about them to a file for Wireshark
///
/// Each packet stands there as it came in and, where it left, as it left; the decision is its
/// comment. What else there is to say is as with 'trace'.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sudo evenkeel capture -w web.pcapng web --count 1000
  sudo evenkeel capture -w drops.pcapng --verdict dropped --for 1m --snaplen 128
  tshark -r web.pcapng -T fields -e frame.number -e frame.comment

In Wireshark, 'frame.comment' is the decision; 'frame.p2p_dir' tells packets that came in (received)
from those that left (sent).

Exit codes:
  0  packets were written
  1  there were none such
  2  the controller cannot be asked or refused, the file cannot be written, or wrong usage")]
pub(super) struct Capture {
    #[command(flatten)]
    filter: Filter,
    /// The file, which is written over
    #[arg(long, short = 'w', value_name = "FILE")]
    write: PathBuf,
    /// At most so many packets a second; how many were left out is told in the end
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=i64::from(FASTEST)))]
    rate: u32,
    /// So many bytes of each
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = clap::value_parser!(u32).range(64..=9216))]
    snaplen: u32,
}

fn client(text: &str) -> Result<String, String> {
    prefix(text).map(|prefix| prefix.to_string())
}

fn span(text: &str) -> Result<Duration, String> {
    let span = humantime::parse_duration(text).map_err(|e| e.to_string())?;
    if span.is_zero() || span.as_secs_f64() > LONGEST_S {
        return Err(format!("from 1ms to {LONGEST_S} s"));
    }
    Ok(span)
}

impl Filter {
    fn request(&self, rate: u32, snap: u32) -> Request {
        let named = self.of.as_deref().map(|of| match of.split_once('/') {
            Some((service, backend)) => (service.to_owned(), Some(backend.to_owned())),
            None => (of.to_owned(), None),
        });
        let (service, backend) = named.unzip();
        let outcome = |became: &Became| match became {
            Became::Sent => Outcome::Sent,
            Became::Passed => Outcome::Passed,
            Became::Dropped => Outcome::Dropped,
        };
        Request {
            service,
            backend: backend.flatten(),
            client: self.client.clone(),
            vip: self.vip,
            port: self.port,
            protocol: self.protocol.map(|carries| match carries {
                Carries::Tcp => Protocol::Tcp,
                Carries::Udp => Protocol::Udp,
                Carries::Icmp => Protocol::Icmp,
            }),
            verdicts: self.verdict.iter().map(outcome).collect(),
            reasons: self.reason.clone(),
            count: self.count,
            for_s: self.span.as_secs_f64(),
            rate,
            snap,
        }
    }
}

/// Shows decisions.
pub(super) fn trace(arguments: &Trace) -> anyhow::Result<Answer> {
    let request = arguments.filter.request(arguments.rate, 0);
    let ended = watch(&arguments.filter, &request, |line| {
        let Line::Decision(decision) = line else {
            return Ok(());
        };
        let text = if arguments.json {
            serde_json::to_string(&decision)? + "\n"
        } else {
            one(&decision)
        };
        Ok(output::print(&text)?)
    })?;
    Ok(judge(&ended, "decisions"))
}

/// Writes packets.
pub(super) fn capture(arguments: &Capture) -> anyhow::Result<Answer> {
    let request = arguments.filter.request(arguments.rate, arguments.snaplen);
    let mut file = None;
    let ended = watch(&arguments.filter, &request, |line| {
        match line {
            Line::Begun(begun) => {
                file = Some(File::create(&arguments.write, arguments.snaplen, &begun)?);
            }
            Line::Decision(decision) => {
                if let Some(file) = &mut file {
                    file.write(&decision)?;
                }
            }
            Line::Ended(_) => {}
        }
        Ok(())
    })?;
    Ok(judge(&ended, "packets"))
}

/// Hands lines on as they come, until the last one or Ctrl-C; answers how it ended.
fn watch(
    filter: &Filter,
    request: &Request,
    mut each: impl FnMut(Line) -> anyhow::Result<()>,
) -> anyhow::Result<Ended> {
    let client = Client::new(&filter.socket);
    let mut told = 0;
    let mut last = None;
    let mut failure = None;
    let done = change::block_on(async {
        let lines = client.trace(request, |line| {
            told += u64::from(matches!(line, Line::Decision(_)));
            if let Line::Ended(ended) = &line {
                last = Some(ended.clone());
            }
            match each(line) {
                Ok(()) => ControlFlow::Continue(()),
                Err(e) => {
                    failure = Some(e);
                    ControlFlow::Break(())
                }
            }
        });
        tokio::select! {
            done = lines => done,
            // The connection ends with this, and the controller sees that.
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    })?;
    match failure {
        Some(e) => return Err(e),
        None => done?,
    }
    Ok(last.unwrap_or(Ended {
        why: "interrupted".to_owned(),
        told,
        skipped: 0,
        lost: 0,
    }))
}

/// Says how it ended, beside what was printed.
fn judge(ended: &Ended, what: &str) -> Answer {
    let Ended {
        why,
        told,
        skipped,
        lost,
    } = ended;
    let mut line = format!("{told} {what}");
    // Writing to a string cannot fail.
    if *skipped > 0 {
        let _ = write!(line, ", {skipped} more beyond the rate");
    }
    if *lost > 0 {
        let _ = write!(line, ", {lost} lost because they were not read in time");
    }
    output::complain(&format!("{line} ({})", plain(why)));
    if *told > 0 { Answer::Yes } else { Answer::No }
}

/// A decision in a line.
fn one(decision: &Decision) -> String {
    let at = humantime::format_rfc3339_micros(
        std::time::UNIX_EPOCH + Duration::from_micros(decision.at_us),
    );
    let at = at.to_string();
    // The day is known to whoever watches.
    let time = at.get(11..26).unwrap_or(&at);
    format!("{time} {}\n", plain(&words(decision)))
}

/// What came, and what became of it.
fn words(decision: &Decision) -> String {
    let mut text = match (&decision.protocol, &decision.source, &decision.destination) {
        (Some(protocol), Some(source), Some(destination)) => {
            format!("{protocol} {source} -> {destination}")
        }
        _ => "no IP packet".to_owned(),
    };
    if let Some(flags) = decision.flags.as_deref().filter(|flags| !flags.is_empty()) {
        text = text + " " + flags;
    }
    let (length, interface) = (decision.length, &decision.interface);
    let became = became(decision);
    let service = decision.service.as_ref();
    let of = service.map_or_else(String::new, |service| format!(" of {service}"));
    let why = &decision.why;
    text + &format!(" {length} bytes by {interface}: {became}{of}; {why}")
}

/// What became of a packet.
fn became(decision: &Decision) -> String {
    let reason = decision.reason.as_deref().unwrap_or_default();
    match (&*decision.verdict, &decision.backend, decision.reply) {
        ("transmit" | "redirect", Some(backend), false) if reason.is_empty() => {
            let new = if decision.new_flow {
                ", a new connection"
            } else {
                ""
            };
            format!("to {backend}{new}")
        }
        ("transmit" | "redirect", Some(backend), true) => format!("from {backend} to its client"),
        ("transmit" | "redirect", ..) => format!("sent ({reason})"),
        ("pass", ..) => format!("to the host's stack ({reason})"),
        ("drop", ..) => format!("DROPPED ({reason})"),
        _ => "undecided".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn decision() -> Decision {
        Decision {
            at_us: 1_764_180_000_123_456,
            ingress: 2,
            interface: "eth0".to_owned(),
            cpu: 1,
            protocol: Some("tcp".to_owned()),
            source: Some("203.0.113.9:51000".to_owned()),
            destination: Some("198.51.100.10:80".to_owned()),
            flags: Some("SYN".to_owned()),
            length: 74,
            verdict: "transmit".to_owned(),
            reason: None,
            generation: 7,
            service: Some("web".to_owned()),
            backend: Some("b1".to_owned()),
            reply: false,
            new_flow: true,
            slot: None,
            remembered: None,
            why: "slot 3 of 256 is b1's".to_owned(),
            left_by: Some(2),
            frame: Some("00".repeat(74)),
            left: Some("01".repeat(74)),
            left_length: Some(74),
        }
    }

    #[test]
    fn a_decision_is_a_line() {
        assert_eq!(
            one(&decision()),
            "18:00:00.123456 tcp 203.0.113.9:51000 -> 198.51.100.10:80 SYN 74 bytes by eth0: to b1, a \
             new connection of web; slot 3 of 256 is b1's\n"
        );
        let dropped = Decision {
            verdict: "drop".to_owned(),
            reason: Some("denied".to_owned()),
            backend: None,
            why: "because".to_owned(),
            ..decision()
        };
        assert!(
            words(&dropped).ends_with("by eth0: DROPPED (denied) of web; because"),
            "{}",
            words(&dropped)
        );
    }

    #[test]
    fn times_are_bounded() {
        assert_eq!(span("90s"), Ok(Duration::from_secs(90)));
        for wrong in ["0s", "11m", "soon"] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
    }
}
