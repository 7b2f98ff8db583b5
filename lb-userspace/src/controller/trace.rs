//! Tells decisions as they are made: another program forwards meanwhile, and what it tells is read
//! and handed on beside the controller's task.

mod teller;

use std::{sync::Arc, time::Duration};

use ipnet::IpNet;
use lb_common::{
    layout::TICK_NS,
    trace::{Filter, SNAP, only, verdict_bit},
    verdict::{Reason, Verdict},
    wire::{icmp, tcp, udp},
};
use log::{error, warn};
use serde_json::json;
use tokio::sync::watch;

use self::teller::{Clock, Teller};
use super::{Now, state::State};
use crate::{
    admin::{
        proto::{
            explain::Protocol,
            flows::prefix,
            trace::{Begun, Ended, FASTEST, LONGEST_S, Outcome, Request},
        },
        server::change::{Actor, Answer, Because, Lines, Refused},
    },
    balance::image,
    causes::with_causes,
    dataplane::flows::Flows,
    explain::Names,
    journal::{Event, Kind, Level},
};

/// Somebody who watches.
pub(super) struct Watcher {
    /// Who.
    by: String,
    /// What people call what the tables number, as it changes.
    names: watch::Sender<Arc<Names>>,
}

impl State {
    /// Puts the program that tells in the place of the plain one, and begins to hand on what it tells.
    pub(super) fn trace(
        &mut self,
        by: &Actor,
        request: &Request,
        Lines(lines): Lines,
        now: Now,
    ) -> Result<Answer, Refused> {
        self.now = now;
        self.settle_trace(now);
        if let Some(watcher) = &self.watcher {
            let error = format!("{} watches already: one can at a time", watcher.by);
            return Err(Refused::new(Because::Busy, error));
        }
        if !self.attached() {
            return Err(Refused::new(Because::Busy, "nothing is attached yet"));
        }
        let filter = self.filter(request)?;
        let interfaces = self.interfaces().iter();
        let begun = Begun {
            interfaces: interfaces.map(|a| (a.index, a.name.clone())).collect(),
        };
        let records = self
            .kernel
            .trace(&self.config.data_plane, &filter)
            .map_err(|e| Refused::new(Because::Failed, with_causes(&e)))?;
        let (names, latest) = watch::channel(Arc::new(self.names()));
        let clock = Clock::read(now.unix_ms);
        let teller = Teller::new(records, lines, latest, request.clone(), clock);
        tokio::spawn(teller.run(begun, self.over.0.clone()));
        let what = if request.snap == 0 {
            "decisions"
        } else {
            "packets"
        };
        let message = format!(
            "{} watches {what} for up to {:.0} s; another program forwards meanwhile",
            by.name, request.for_s
        );
        let event = self.event(Kind::Change, Level::Info, message);
        let detail = json!({ "what": "trace", "uid": by.uid, "request": request });
        self.tell(Event {
            actor: by.name.clone(),
            ..event.detail(detail)
        });
        self.watcher = Some(Watcher {
            by: by.name.clone(),
            names,
        });
        Ok(Answer::Begun)
    }

    /// Takes note where nobody watches any more.
    pub(super) fn settle_trace(&mut self, now: Now) {
        if let Ok(over) = self.over.1.try_recv() {
            self.end_trace(Some(&over), now);
        }
        self.forward_plainly();
    }

    /// Takes note that nobody watches any more, and puts the plain program back.
    pub(super) fn end_trace(&mut self, over: Option<&Ended>, now: Now) {
        self.now = now;
        let Some(watcher) = self.watcher.take() else {
            return;
        };
        if let Err(e) = self.kernel.trace_no_more() {
            warn!(
                "decisions are told to nobody for a while: {}",
                with_causes(&e)
            );
        }
        self.forward_plainly();
        let ended = over.map_or_else(
            || "the controller ends".to_owned(),
            |over| {
                let Ended {
                    why,
                    told,
                    skipped,
                    lost,
                } = over;
                format!("{told} told, {skipped} beyond the rate, {lost} lost; why it ended: {why}")
            },
        );
        let message = format!("{} does not watch any more: {ended}", watcher.by);
        let event = self.event(Kind::Change, Level::Info, message);
        self.tell(event.detail(json!({ "what": "trace", "ended": over })));
    }

    /// Has the plain program forward where nobody watches and no drill takes packets.
    pub(super) fn forward_plainly(&mut self) {
        if self.watcher.is_some() || self.drill_takes_packets() || !self.kernel.is_traced() {
            return;
        }
        // The other one forwards by the same tables, and tells nobody: it is tried again with the next
        // tick.
        if let Err(e) = self.kernel.forward_plainly(&self.config.data_plane) {
            error!(
                "the plain program is not back yet, another one forwards: {}",
                with_causes(&e)
            );
        }
    }

    /// Tells whoever watches what the numbers mean by now.
    pub(super) fn rename(&self) {
        if let Some(watcher) = &self.watcher {
            watcher.names.send_replace(Arc::new(self.names()));
        }
    }

    /// What is told.
    fn filter(&self, request: &Request) -> Result<Filter, Refused> {
        let invalid = |error: String| Refused::new(Because::Invalid, error);
        if !(request.for_s > 0.0 && request.for_s <= LONGEST_S) {
            let error = format!("decisions are watched for up to {LONGEST_S} seconds");
            return Err(invalid(error));
        }
        if !(1..=FASTEST).contains(&request.rate) {
            return Err(invalid(format!(
                "from 1 to {FASTEST} decisions a second are told"
            )));
        }
        if request.snap as usize > SNAP {
            return Err(invalid(format!(
                "up to {SNAP} bytes of a frame are captured"
            )));
        }
        let ticks = Duration::from_secs_f64(request.for_s).as_nanos() / u128::from(TICK_NS);
        let mut filter: Filter = bytemuck::Zeroable::zeroed();
        // A little longer than whoever reads: it goes by another clock.
        filter.until = Flows::now().wrapping_add(ticks as u32 + 100);
        (filter.rate, filter.snap) = (request.rate, request.snap);
        if let Some(name) = &request.service {
            let service = self.named_service(name)?;
            filter.service = number(self.numbers.service(&service.key), name)?;
            filter.only |= only::SERVICE;
            if let Some(backend) = &request.backend {
                let (service, found) = self.named(name, backend)?;
                let number = self.numbers.endpoint(&service.key, found.address);
                filter.endpoint = self::number(number, backend)?;
                filter.only |= only::ENDPOINT;
            }
        } else if request.backend.is_some() {
            return Err(invalid("a backend is named by its service, too".to_owned()));
        }
        if let Some(client) = &request.client {
            let network = prefix(client).map_err(invalid)?;
            (filter.client, filter.client_family) = image::address(network.network());
            filter.mask = mask(network);
            filter.only |= only::CLIENT;
        }
        if let Some(vip) = request.vip {
            (filter.vip, filter.vip_family) = image::address(vip);
            filter.only |= only::VIP;
        }
        if let Some(port) = request.port {
            filter.port = port.to_be();
            filter.only |= only::PORT;
        }
        if let Some(protocol) = request.protocol {
            [filter.protocol, filter.protocol_v6] = match protocol {
                Protocol::Tcp => [tcp::PROTOCOL; 2],
                Protocol::Udp => [udp::PROTOCOL; 2],
                Protocol::Icmp => [icmp::PROTOCOL, icmp::PROTOCOL_V6],
            };
            filter.only |= only::PROTOCOL;
        }
        for outcome in &request.verdicts {
            filter.verdicts |= match outcome {
                Outcome::Sent => verdict_bit(Verdict::Transmit) | verdict_bit(Verdict::Redirect(0)),
                Outcome::Passed => verdict_bit(Verdict::Pass(Reason::NoService)),
                Outcome::Dropped => verdict_bit(Verdict::Drop(Reason::NoService)),
            };
            filter.only |= only::VERDICT;
        }
        for name in &request.reasons {
            let found = Reason::ALL.into_iter().find(|reason| reason.name() == name);
            let reason = found.ok_or_else(|| {
                let names = Reason::ALL.map(Reason::name).join(", ");
                invalid(format!("there is no reason {name}: there are {names}"))
            })?;
            filter.reasons |= 1 << reason as u32;
            filter.only |= only::REASON;
        }
        Ok(filter)
    }
}

fn number(number: Option<u16>, name: &str) -> Result<u16, Refused> {
    number.ok_or_else(|| Refused::new(Because::Unknown, format!("{name} has no number yet")))
}

/// The bits of an address that a network's length says.
pub(super) fn mask(network: IpNet) -> [u32; 4] {
    match network {
        IpNet::V4(v4) => {
            let word = u32::from_ne_bytes(v4.netmask().octets());
            [u32::MAX, u32::MAX, u32::MAX, word]
        }
        IpNet::V6(v6) => bytemuck::cast(v6.netmask().octets()),
    }
}
