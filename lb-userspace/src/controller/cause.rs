//! Why a service's load is not even, with what it is not: the first match of a fixed order.

use super::load::Load;
use crate::{
    admin::proto,
    model::{Backend, Service},
    stats::{
        clients::{Summary, WINDOW},
        evenness::{self, Cause, Judgement, Skew},
    },
};

/// A backend's part of the packets is looked at where it is so many times its part of the flows...
const ELEPHANT: f64 = 1.3;
/// ... and so many packets a second came to all.
const PACKETS: f64 = 100.0;

/// Why new flows do not follow the shares: of the backend that deviates most.
pub(super) struct FlowCause {
    pub(super) skew: Skew,
    pub(super) judgement: Judgement,
    clients: Summary,
}

impl FlowCause {
    /// Looks at the clients of the worst skew; `None` where there is none.
    pub(super) fn of(load: &Load) -> Option<Self> {
        let assessment = load.detector.assessment();
        let skew = *assessment.worst()?;
        let clients = load.clients.summary(skew.since, load.counters.len());
        let judgement = evenness::cause(skew.backend, skew.intended_share, &clients);
        Some(Self {
            skew,
            judgement,
            clients,
        })
    }

    pub(super) const fn kind(&self) -> &'static str {
        match self.judgement.cause {
            Cause::HeavyClients => "heavy-clients",
            Cause::FewClients => "few-clients",
            Cause::Hash => "hash",
            Cause::Unknown => "unknown",
        }
    }

    /// The cause in words, to be put behind what deviates.
    pub(super) fn words(&self) -> String {
        match self.judgement.cause {
            Cause::HeavyClients => self.heavy(),
            Cause::FewClients => self.few(),
            Cause::Hash => format!(
                "flows of many clients fall unevenly on the slots ({})",
                self.off_by_chance()
            ),
            Cause::Unknown => format!(
                "why cannot be told: only {} connections were looked at",
                self.clients.samples
            ),
        }
    }

    fn heavy(&self) -> String {
        let heaviest = &self.clients.heaviest;
        // The first makes most of it; who has next to nothing beside it is not to blame.
        let least = heaviest.first().map_or(0.0, |first| first.share / 4.0);
        let named: Vec<String> = heaviest
            .iter()
            .filter(|heavy| heavy.share >= least)
            .map(|heavy| format!("{} with {:.1} %", heavy.client, 100.0 * heavy.share))
            .collect();
        let without = match self.judgement.share_of_others {
            Some(share) => format!("without them it gets {:.1} %", 100.0 * share),
            None => "there are no others".to_owned(),
        };
        let named = named.join(", ");
        format!("the heaviest clients make it ({named} of new flows; {without})")
    }

    fn few(&self) -> String {
        let clients = match self.clients.effective() {
            Some(number) => format!("as many clients as {number:.0} that are alike"),
            None => "so few clients".to_owned(),
        };
        format!(
            "{clients} are spread no better by chance ({})",
            self.off_by_chance()
        )
    }

    fn off_by_chance(&self) -> String {
        format!(
            "{:.1} standard deviations of as many clients",
            self.judgement.deviations
        )
    }

    /// What the clients do not explain.
    fn ruled_out(&self) -> Vec<String> {
        let mut ruled_out = Vec::new();
        if self.judgement.cause == Cause::Unknown {
            return ruled_out;
        }
        if self.judgement.cause != Cause::HeavyClients
            && let (Some(heaviest), Some(others)) = (
                self.clients.heaviest.first(),
                self.judgement.share_of_others,
            )
        {
            ruled_out.push(format!(
                "heavy clients: the heaviest, {}, has {:.1} % of new flows, and without the heaviest \
                 three it is {:.1} % instead of {:.1} %",
                heaviest.client,
                100.0 * heaviest.share,
                100.0 * others,
                100.0 * self.judgement.share
            ));
        }
        if self.judgement.cause == Cause::Hash {
            let many = match self.clients.effective() {
                Some(number) => format!("{number:.0} alike would be as concentrated"),
                None => "hardly two flows are of the same one".to_owned(),
            };
            ruled_out.push(format!("few clients: {many}"));
        }
        ruled_out
    }
}

/// Why a service's load is not even; where it is even, what else there is to know of it. The
/// kernel's ring was last compared so many seconds ago.
pub(super) fn judge(
    service: &Service,
    load: &Load,
    shown: &proto::Service,
    compared_s: u64,
) -> Option<proto::Cause> {
    let findings = &shown.evenness.findings;
    let found = |reference: &str, ruled_out: &[String]| {
        // What nobody declared is not held against anybody.
        let held = |of: &&proto::Finding| of.reference != "config" || of.severity != "ticket";
        let mut of = findings.iter().filter(|of| of.reference == reference);
        of.find(held).map(|finding| proto::Cause {
            kind: finding.reference.clone(),
            backend: finding.backend.clone(),
            message: finding.message.clone(),
            ruled_out: ruled_out.to_vec(),
        })
    };
    let mut ruled_out = Vec::new();
    for (reference, otherwise) in [
        (
            "drift",
            format!("drift: the kernel's ring was the intended one {compared_s} s ago"),
        ),
        (
            "table",
            format!(
                "table: each backend has the slots that its weight asks for, to within {:.1} %",
                100.0 * off_weights(shown)
            ),
        ),
        ("config", weights(service, findings)),
    ] {
        if let Some(mut cause) = found(reference, &ruled_out) {
            cause.ruled_out.extend(followed(service, load));
            return Some(cause);
        }
        ruled_out.push(otherwise);
    }
    if let Some(cause) = FlowCause::of(load) {
        ruled_out.extend(cause.ruled_out());
        let name = &service.backends[cause.skew.backend].name;
        let what = cause.skew.describe(name, load.detector.assessment().at);
        return Some(proto::Cause {
            kind: cause.kind().to_owned(),
            backend: Some(name.to_string()),
            message: format!("{what}: {}", cause.words()),
            ruled_out,
        });
    }
    if shown.evenness.verdict == proto::Verdict::Even {
        ruled_out.push(format!("flows: {}", shown.evenness.message));
    }
    let (kind, backend, message) = slow(shown).or_else(|| elephant(load, shown))?;
    Some(proto::Cause {
        kind: kind.to_owned(),
        backend: Some(backend),
        message,
        ruled_out,
    })
}

/// How far the furthest backend's slots are off its weight, in parts of what that asks for.
fn off_weights(shown: &proto::Service) -> f64 {
    let weight = |of: &proto::Backend| of.weight_in_force.unwrap_or_else(|| of.weight.into());
    let sum: f64 = shown.backends.iter().map(weight).sum();
    let off = shown.backends.iter().filter_map(|of| {
        let asked = weight(of) / sum;
        (asked > 0.0).then(|| (of.intended_share / asked - 1.0).abs())
    });
    off.fold(0.0, f64::max)
}

/// What new flows say where the cause is another one: that they go where the table sends them.
fn followed(service: &Service, load: &Load) -> Option<String> {
    let assessment = load.detector.assessment();
    let names: Vec<&str> = service.backends.iter().map(|of| &*of.name).collect();
    let words = || assessment.describe(&names);
    match assessment.verdict {
        evenness::Verdict::Skewed => None,
        evenness::Verdict::Even => Some(format!("flows: they follow the table, {}", words())),
        evenness::Verdict::CannotTell(_) => Some(format!("flows: not ruled out, {}", words())),
    }
}

/// What is known of the weights where they are not the cause.
fn weights(service: &Service, findings: &[proto::Finding]) -> String {
    let capacity = |of: &Backend| of.capacity.map(|capacity| f64::from(capacity.get()));
    let weighted = service.backends.iter().filter(|of| of.weight.number() > 0);
    let declared: Option<Vec<(f64, f64)>> = weighted
        .map(|of| Some((f64::from(of.weight.number()), capacity(of)?)))
        .collect();
    if let Some(declared) = declared {
        let sums = declared
            .iter()
            .fold((0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1));
        let off = declared.iter().map(|(weight, capacity)| {
            let ratio = (weight / sums.0) / (capacity / sums.1);
            (ratio - 1.0).abs()
        });
        return format!(
            "config: the weights are the declared capacities', to within {:.1} %",
            100.0 * off.fold(0.0, f64::max)
        );
    }
    let differ = findings.iter().any(|of| of.reference == "config");
    let words = if differ {
        "config: not ruled out, weights differ and no capacity is declared"
    } else {
        "config: all weights are alike, as capacities are taken to be"
    };
    words.to_owned()
}

/// A kind, the backend that it is about, and words.
type Remark = (&'static str, String, String);

/// A backend that is slow although it gets no more than its share.
fn slow(shown: &proto::Service) -> Option<Remark> {
    let slow = shown.backends.iter().filter_map(|backend| {
        let seen = backend.performance.as_ref()?;
        let blamed = matches!(&*seen.state, "suspect" | "spared" | "demoted");
        (blamed && seen.cause.as_deref() == Some("slow")).then_some((backend, seen))
    });
    let (backend, seen) = slow.max_by(|(_, a), (_, b)| {
        let ratio = |of: &proto::Performance| of.ratio.unwrap_or(0.0);
        ratio(a).total_cmp(&ratio(b))
    })?;
    let name = &backend.name;
    let message = match (seen.ratio, seen.latency_ms, seen.peers_ms) {
        (Some(ratio), Some(own), Some(peers)) => format!(
            "{name} is {ratio:.1} times as slow as its peers ({own:.1} ms instead of {peers:.1} ms) \
             with no more than its share of the load"
        ),
        _ => format!("{name} is slow with no more than its share of the load"),
    };
    Some(("slow-backend", name.clone(), message))
}

/// A backend with more packets than its flows say: a few large connections, which are where they
/// are.
fn elephant(load: &Load, shown: &proto::Service) -> Option<Remark> {
    let rates = shown.backends.iter().map(|backend| backend.packet_rate);
    if rates.sum::<f64>() < PACKETS || load.packet_window.covered() < WINDOW / 2 {
        return None;
    }
    let more = shown
        .backends
        .iter()
        .enumerate()
        .filter_map(|(n, backend)| {
            let (packets, flows) = (load.packet_window.share(n)?, load.window.share(n)?);
            let ratio = packets / flows.max(backend.intended_share);
            (ratio > ELEPHANT).then_some((backend, packets, flows, ratio))
        });
    let (backend, packets, flows, _) = more.max_by(|a, b| a.3.total_cmp(&b.3))?;
    let name = &backend.name;
    let message = format!(
        "{name} gets {:.1} % of the packets with {:.1} % of the new flows: a few of its connections \
         are large, which no balancer can split",
        100.0 * packets,
        100.0 * flows
    );
    Some(("elephant", name.clone(), message))
}
