//! `evenkeel check`: is a configuration right?

use std::{fmt::Write, path::PathBuf};

use clap::Args;

use super::{
    Answer, CONFIG_FILE,
    output::{self, plain},
};
use crate::{
    config::{self, LoadError},
    model::{Config, HealthCheck, Service},
};

/// Say everything that is wrong with a configuration, or what it means
///
/// Changes nothing, and needs neither root nor a running controller.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  evenkeel check
  evenkeel check ./evenkeel.toml
  evenkeel check --json ./evenkeel.toml | jq -r '.[].problem'

With --json, the findings are printed as a list, which is empty for a valid configuration.

Exit codes:
  0  valid
  1  not valid; the findings are on standard output
  2  the file could not be read, or wrong usage")]
pub(super) struct Arguments {
    /// The configuration
    #[arg(value_name = "FILE", default_value = CONFIG_FILE)]
    file: PathBuf,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

/// Checks a file.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    let (text, answer) = match config::load(&arguments.file) {
        Ok(_) if arguments.json => ("[]\n".to_owned(), Answer::Yes),
        Ok(config) => {
            let name = plain(&arguments.file.to_string_lossy());
            (
                format!("{name} is valid\n\n{}", summary(&config)),
                Answer::Yes,
            )
        }
        Err(LoadError::Findings(findings)) if arguments.json => {
            (serde_json::to_string_pretty(&findings)? + "\n", Answer::No)
        }
        Err(LoadError::Findings(findings)) => {
            (format!("{}\n", findings.to_string().trim_end()), Answer::No)
        }
        Err(error) => return Err(error.into()),
    };
    output::print(&text)?;
    Ok(answer)
}

/// What a person wants to see confirmed.
fn summary(config: &Config) -> String {
    let plane = &config.data_plane;
    let admin = &config.admin;
    let mut out = format!(
        "attached to   {} ({} XDP)\npinned in     {}\nanswers at    {}, for {}\n",
        plain(&plane.interfaces.join(", ")),
        plane.xdp_mode,
        plain(&plane.pins.to_string_lossy()),
        plain(&admin.socket.to_string_lossy()),
        admin.group.as_ref().map_or_else(
            || "root alone".to_owned(),
            |group| format!("root and group {}", plain(group))
        ),
    );
    for service in &config.services {
        describe(service, &mut out);
    }
    out
}

fn describe(service: &Service, out: &mut String) {
    let checked = service.health.as_ref().map_or_else(
        || "not checked: every backend counts as healthy".to_owned(),
        describe_check,
    );
    let mut lines = format!(
        "\n{}  {}, {}, {} slots, {} packets while no backend is usable\n  {checked}\n",
        plain(&service.name),
        service.key,
        service.mode,
        service.ring_slots.count(),
        service.on_empty,
    );
    let total: u64 = service
        .backends
        .iter()
        .map(|backend| u64::from(backend.weight.number()))
        .sum();
    let width = service
        .backends
        .iter()
        .map(|backend| plain(&backend.name).chars().count())
        .max();
    for backend in &service.backends {
        let weight = backend.weight.number();
        let share = if total == 0 {
            0.0
        } else {
            f64::from(weight) / total as f64
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            lines,
            "  {:width$}  {}  weight {weight}, {:.1} % of the load",
            plain(&backend.name),
            backend.address,
            share * 100.0,
            width = width.unwrap_or(0),
        );
    }
    out.push_str(&lines);
}

fn describe_check(check: &HealthCheck) -> String {
    format!(
        "{} check of port {} every {}, time-out {}; up after {} passed, down after {} failed",
        check.kind.name(),
        check.port,
        humantime::format_duration(check.interval),
        humantime::format_duration(check.timeout),
        check.rise,
        check.fall,
    )
}

#[cfg(test)]
mod tests {
    use std::{
        num::{NonZeroU16, NonZeroU32},
        time::Duration,
    };

    use super::*;
    use crate::model::{
        AdminConfig, Backend, DataPlaneConfig, Mode, OnDown, OnEmpty, ProbeKind, Protocol,
        RingSlots, ServiceKey, ServicePort, Tracking, Weight, XdpMode,
    };

    #[test]
    fn the_summary_says_what_the_file_means() {
        let backend = |name: &str, address: &str, weight| Backend {
            name: name.into(),
            address: address.parse().unwrap(),
            weight: Weight::new(weight).unwrap(),
            capacity: None,
        };
        let config = Config {
            data_plane: DataPlaneConfig {
                interfaces: vec!["eth0".to_owned(), "eth1".to_owned()],
                xdp_mode: XdpMode::Native,
                pins: "/sys/fs/bpf/evenkeel".into(),
                hash_seed: 0,
            },
            admin: AdminConfig {
                socket: "/run/x.sock".into(),
                group: Some("ops".to_owned()),
            },
            tracking: Tracking::default(),
            services: vec![Service {
                name: "web".into(),
                key: ServiceKey {
                    vip: "198.51.100.10".parse().unwrap(),
                    port: ServicePort::Exact(NonZeroU16::new(80).unwrap()),
                    protocol: Protocol::Tcp,
                },
                mode: Mode::Dsr,
                ring_slots: RingSlots::DEFAULT,
                on_empty: OnEmpty::Drop,
                on_down: OnDown::default(),
                health: Some(HealthCheck {
                    kind: ProbeKind::Tcp,
                    port: NonZeroU16::new(80).unwrap(),
                    interval: Duration::from_secs(1),
                    timeout: Duration::from_millis(500),
                    rise: NonZeroU32::new(2).unwrap(),
                    fall: NonZeroU32::new(3).unwrap(),
                }),
                backends: vec![
                    backend("b1", "10.0.0.1", 3),
                    backend("old-b2", "10.0.0.2", 1),
                ],
            }],
        };
        assert_eq!(
            summary(&config),
            "\
attached to   eth0, eth1 (native XDP)
pinned in     /sys/fs/bpf/evenkeel
answers at    /run/x.sock, for root and group ops

web  tcp 198.51.100.10:80, dsr, 65536 slots, drop packets while no backend is usable
  tcp check of port 80 every 1s, time-out 500ms; up after 2 passed, down after 3 failed
  b1      10.0.0.1  weight 3, 75.0 % of the load
  old-b2  10.0.0.2  weight 1, 25.0 % of the load
"
        );
    }
}
