//! The rule about who is attached already.

use super::{
    super::{
        facts::{Facts, Hook, Interface, Owner, Program},
        finding::{Finding, Level, Remedy},
    },
    link::in_place,
};

/// An interface takes one program.
#[expect(
    clippy::unnecessary_wraps,
    reason = "rules have one form, and most are silent at times"
)]
pub(super) fn xdp_slot(facts: &Facts, name: &str, interface: &Interface) -> Option<Finding> {
    const RULE: &str = "xdp-slot";
    let Some(program) = &interface.program else {
        return Some(Finding::ok(RULE, name, "no XDP program is attached"));
    };
    let hook = hook(program.hook);
    Some(match &program.owner {
        Owner::Ours if in_place(facts, interface) => Finding::ok(
            RULE,
            name,
            format!(
                "Evenkeel is attached in {hook} mode (program {}): a start takes its place \
                 without a gap",
                program.id
            ),
        ),
        Owner::Ours => Finding::new(
            Level::Warning,
            RULE,
            name,
            format!(
                "Evenkeel is attached in {hook} mode, and {} is configured",
                facts.plan.mode
            ),
            "a start keeps the link, and with it the mode that it was made in",
            Remedy::command(
                "take it out and start anew, which interrupts forwarding",
                ["evenkeel", "unload"],
            ),
        ),
        Owner::Unknown => Finding::new(
            Level::Info,
            RULE,
            name,
            format!("an XDP program is attached: {}", describe(program)),
            "whose it is, only root is told; an interface takes one program",
            Remedy::default(),
        ),
        Owner::Foreign { holders, link } => Finding::new(
            Level::Error,
            RULE,
            name,
            format!("another XDP program is attached: {}", describe(program)),
            if holders.is_empty() {
                "an interface takes one program".to_owned()
            } else {
                format!(
                    "an interface takes one program; held by {}",
                    holders.join(", ")
                )
            },
            Remedy::command(
                "stop or unload the software that it belongs to, or detach it",
                detach(name, program.hook, *link),
            ),
        ),
    })
}

fn hook(hook: Hook) -> &'static str {
    match hook {
        Hook::Native => "native",
        Hook::Generic => "generic",
        Hook::Other => "offloaded",
    }
}

fn describe(program: &Program) -> String {
    let (id, hook) = (program.id, hook(program.hook));
    match &program.label {
        Some(label) if label.name.is_empty() => {
            format!("number {id}, tag {:016x}, {hook}", label.tag)
        }
        Some(label) => format!(
            "{} (number {id}, tag {:016x}, {hook})",
            label.name, label.tag
        ),
        None => format!("number {id}, {hook}"),
    }
}

/// A program that is held by a link comes off by that link alone.
fn detach(name: &str, hook: Hook, link: Option<u32>) -> Vec<String> {
    let link = link.map(|link| link.to_string());
    let words = match (&link, hook) {
        (Some(link), _) => vec!["bpftool", "link", "detach", "id", link],
        (None, Hook::Native) => vec!["ip", "link", "set", "dev", name, "xdpdrv", "off"],
        (None, Hook::Generic) => vec!["ip", "link", "set", "dev", name, "xdpgeneric", "off"],
        (None, Hook::Other) => vec!["ip", "link", "set", "dev", name, "xdp", "off"],
    };
    words.into_iter().map(ToOwned::to_owned).collect()
}
