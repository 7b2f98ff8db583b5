//! `evenkeel decap`: the backend's end of the modes `ipip` and `gue`.

mod render;

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, ValueEnum};
use ipnet::IpNet;
use sd_notify::NotifyState;
use tokio::{
    signal::unix::{SignalKind, signal},
    time,
};

use self::render::{Status, status};
use super::{Answer, output};
use crate::{
    dataplane::decap::{self, Decap, Others, Rules, Senders, host},
    model::XdpMode,
    privileges,
};

/// Where everything is pinned, unless named.
const PINS: &str = "/sys/fs/bpf/evenkeel-decap";

/// Take packets out of their tunnels on a backend of mode 'ipip' or 'gue'
///
/// An XDP program takes IPv4 and IPv6 out of IP (protocols 4 and 41) and out of UDP (GUE), and
/// hands what was inside to this host, which must hold the VIP. It listens to the load balancers
/// named with --allow; what others send it in a tunnel is dropped, and what is no tunnel's packet
/// for this host is left alone. Ctrl-C ends the command and leaves the kernel decapsulating;
/// starting it again takes over with no gap.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sudo evenkeel decap --interface eth0 --allow 10.0.0.2 --allow 10.0.0.3 --vip 198.51.100.10
  sudo evenkeel decap --interface eth0 --allow 10.0.0.0/24 --once
  sudo evenkeel decap --status --json | jq .unwrapped
  sudo evenkeel decap --detach

With --json, one object a line, of the same form as --status prints.

A load balancer that varies its outer source addresses needs their whole prefix allowed.

Exit codes:
  0  ended as told; --status: it is loaded; --detach: nothing of it is left in the kernel
  1  with --status only: it is not loaded
  2  could not start, or wrong usage")]
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
pub(super) struct Arguments {
    /// An interface that the load balancer's packets come in by; may be repeated
    #[arg(long, short, value_name = "NAME", required_unless_present_any = ["status", "detach"])]
    interface: Vec<String>,
    /// An address or prefix that load balancers send from; may be repeated
    #[arg(long, value_name = "PREFIX", value_parser = prefix, conflicts_with = "allow_any")]
    allow: Vec<IpNet>,
    /// Listen to whoever reaches this host: anybody can then send to it under any address
    #[arg(long)]
    allow_any: bool,
    /// Drop packets that are for no VIP, once out of their tunnel; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    vip: Vec<IpAddr>,
    /// Where tunnels end, instead of at every address of the interfaces; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    address: Vec<IpAddr>,
    /// The UDP port of GUE; 0 leaves UDP alone
    #[arg(long, value_name = "PORT", default_value_t = 6080)]
    gue_port: u16,
    /// What becomes of tunnel packets of senders that are not allowed
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = OthersArgument::Drop)]
    others: OthersArgument,
    /// In the driver, or in the stack at several times the cost
    #[arg(long, value_name = "MODE", value_enum, default_value_t = Hook::Native)]
    xdp_mode: Hook,
    /// The folder in a BPF file system that holds program, links and maps
    #[arg(long, value_name = "FOLDER", default_value = PINS)]
    pins: PathBuf,
    /// Attach, say so and end
    #[arg(long)]
    once: bool,
    /// How often to say what was counted, and to look for new addresses of the interfaces
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    every: u64,
    /// Say what is loaded and what it counted, and end
    #[arg(long, conflicts_with_all = ["interface", "allow", "allow_any", "vip", "address", "once", "detach"])]
    status: bool,
    /// Take it out of the kernel, which ends decapsulation; end the command first
    #[arg(long, visible_alias = "unload", conflicts_with_all = ["interface", "allow", "allow_any", "vip", "address", "once"])]
    detach: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Which hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Hook {
    /// In the driver; refused where the driver cannot
    Native,
    /// In the stack, on any interface
    Generic,
}

/// What becomes of what others send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OthersArgument {
    /// Nowhere
    Drop,
    /// Untouched to the stack: for a host that is the end of other tunnels, too
    Pass,
}

/// A prefix, or an address, which is the longest of prefixes.
fn prefix(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse()
        .or_else(|_| address())
        .map(|prefix: IpNet| prefix.trunc())
        .map_err(|_| "not an address or a prefix like 10.0.0.0/24 or fd00::/64".to_owned())
}

/// Attaches, looks or detaches.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    if arguments.status {
        return look(arguments);
    }
    if arguments.detach {
        return detach(&arguments.pins);
    }
    if arguments.allow.is_empty() && !arguments.allow_any {
        bail!(
            "no sender is allowed: name the addresses or prefixes that the load balancers send \
             from with --allow; --allow-any listens to everybody, which lets anybody send to this \
             host under any address"
        );
    }
    // Before there is another thread.
    privileges::give_up_all_but(privileges::DECAPSULATOR)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(serve(arguments))
}

async fn serve(arguments: &Arguments) -> anyhow::Result<Answer> {
    // Before anything is attached: a signal then ends the command as told.
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    // Nothing that is in force is changed where this fails.
    decap::exist(&arguments.interface)?;
    let mut rules = rules(arguments).await?;
    let mut decap = Decap::open(&arguments.pins)?;
    decap.apply(&rules)?;
    let mode = match arguments.xdp_mode {
        Hook::Native => XdpMode::Native,
        Hook::Generic => XdpMode::Generic,
    };
    for attached in decap.attach(&arguments.interface, mode)? {
        if attached.adopted {
            log::info!("took over on {}", attached.name);
        } else {
            log::info!("attached to {} ({mode} XDP)", attached.name);
        }
    }
    warn(arguments, &rules).await?;
    say(arguments, None)?;
    if arguments.once {
        return Ok(Answer::Yes);
    }
    if let Err(e) = sd_notify::notify(&[NotifyState::Ready]) {
        log::warn!("the service manager was not told that tunnels end here: {e}");
    }
    let period = Duration::from_secs(arguments.every);
    let mut ticks = time::interval_at(time::Instant::now() + period, period);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    let mut before = decap.counters()?;
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = ticks.tick() => {}
        }
        if let Some(fresh) = followed(arguments, &rules).await {
            decap.apply(&fresh)?;
            rules = fresh;
        }
        say(arguments, Some((&before, period)))?;
        before = decap.counters()?;
    }
    log::info!("ended; the kernel goes on decapsulating until 'evenkeel decap --detach'");
    Ok(Answer::Yes)
}

/// What the arguments ask for, with the addresses that the interfaces have now.
async fn rules(arguments: &Arguments) -> anyhow::Result<Rules> {
    let ends = if arguments.address.is_empty() {
        let all = host::interfaces().await?;
        let mut ends = BTreeSet::new();
        for name in &arguments.interface {
            ends.extend(all.get(name).into_iter().flat_map(|one| &one.addresses));
        }
        ensure!(
            !ends.is_empty(),
            "{} has no address, so no tunnel can end there: give it one, or name this host's \
             addresses with --address",
            arguments.interface.join(", ")
        );
        ends
    } else {
        arguments.address.iter().copied().collect()
    };
    let senders = if arguments.allow_any {
        Senders::Any
    } else {
        Senders::Of(arguments.allow.iter().copied().collect())
    };
    let others = match arguments.others {
        OthersArgument::Drop => Others::Drop,
        OthersArgument::Pass => Others::Pass,
    };
    Ok(Rules {
        senders,
        others,
        ends,
        vips: arguments.vip.iter().copied().collect(),
        gue_port: arguments.gue_port,
    })
}

/// The rules after a change of the interfaces' addresses; `None` where there was none.
///
/// An interface that has lost all of its addresses is about to get others: what was in force
/// stays.
async fn followed(arguments: &Arguments, rules: &Rules) -> Option<Rules> {
    match self::rules(arguments).await {
        Ok(fresh) if fresh == *rules => None,
        Ok(fresh) => {
            let ends: Vec<_> = fresh.ends.iter().map(ToString::to_string).collect();
            log::info!("addresses changed: tunnels end at {}", ends.join(", "));
            Some(fresh)
        }
        Err(error) => {
            log::warn!("the addresses that were known stay in force: {error:#}");
            None
        }
    }
}

async fn warn(arguments: &Arguments, rules: &Rules) -> anyhow::Result<()> {
    let all = host::interfaces().await?;
    let names = &arguments.interface;
    let filter = host::reverse_path;
    for warning in host::warnings(&all, names, &rules.ends, &rules.vips, filter) {
        log::warn!("{warning}");
    }
    if rules.senders == Senders::Any {
        log::warn!(
            "whoever reaches this host can send to it under any address, inside of a tunnel: name \
             the load balancers with --allow instead of --allow-any"
        );
    }
    if rules.vips.is_empty() {
        log::info!("packets inside may be addressed to anything: --vip restricts them to the VIPs");
    }
    Ok(())
}

/// Prints what is loaded; as text with what was counted `since` alone, where that is given.
fn say(
    arguments: &Arguments,
    since: Option<(&lb_common::decap::Counters, Duration)>,
) -> anyhow::Result<()> {
    let loaded = decap::look(&arguments.pins)?
        .with_context(|| format!("{} is gone: start again", arguments.pins.display()))?;
    let text = match since {
        _ if arguments.json => serde_json::to_string(&status(&loaded))? + "\n",
        Some((before, period)) => render::line(before, &loaded.counters, period),
        None => render::text(&status(&loaded)),
    };
    output::print(&text)?;
    Ok(())
}

fn look(arguments: &Arguments) -> anyhow::Result<Answer> {
    let Some(loaded) = decap::look(&arguments.pins)? else {
        let text = if arguments.json {
            "null\n".to_owned()
        } else {
            format!("nothing is loaded in {}\n", arguments.pins.display())
        };
        output::print(&text)?;
        return Ok(Answer::No);
    };
    let status: Status = status(&loaded);
    let text = if arguments.json {
        serde_json::to_string_pretty(&status)? + "\n"
    } else {
        render::text(&status)
    };
    output::print(&text)?;
    Ok(Answer::Yes)
}

fn detach(pins: &Path) -> anyhow::Result<Answer> {
    let text = match decap::unload(pins)? {
        None => format!("nothing is loaded: {} does not exist\n", pins.display()),
        Some(unloaded) => super::unload::sentence(pins, &unloaded),
    };
    output::print(&text)?;
    Ok(Answer::Yes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_prefix_and_bits_behind_one_do_not_matter() {
        for (text, expected) in [
            ("10.0.0.1", "10.0.0.1/32"),
            ("fd00::1", "fd00::1/128"),
            ("10.0.9.7/24", "10.0.9.0/24"),
        ] {
            assert_eq!(prefix(text).unwrap().to_string(), expected);
        }
        for text in ["", "10.0.0.0/33", "eth0", "10.0.0.1/"] {
            assert!(prefix(text).is_err(), "{text}");
        }
    }
}
