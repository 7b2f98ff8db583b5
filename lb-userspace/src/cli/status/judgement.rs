//! Is something wrong?

use crate::admin::proto::{Status, Verdict};

/// What is wrong, in words; nothing where all is as intended or too little has been seen.
pub(in crate::cli) fn reasons(status: &Status) -> Vec<String> {
    let mut reasons = Vec::new();
    if !status.tables.as_intended {
        reasons.push("the kernel's tables are not the intended ones".to_owned());
    }
    for service in &status.services {
        if service.serving == 0 {
            reasons.push(format!("{} has no usable backend", service.name));
        } else if service.evenness.verdict == Verdict::Skewed {
            reasons.push(format!("{} is skewed", service.name));
        }
        if service.panic.is_some() {
            reasons.push(format!("{} is in panic", service.name));
        }
        if service.fleet_degraded.is_some() {
            reasons.push(format!("the fleet of {} is degraded", service.name));
        }
        if service.syn_flood.is_some() {
            reasons.push(format!("{} is under a SYN flood", service.name));
        }
    }
    reasons
}
