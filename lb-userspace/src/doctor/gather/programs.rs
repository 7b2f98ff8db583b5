//! Attached programs, and whose they are.

use std::{fs, path::Path};

use aya::programs::{
    ProgramInfo,
    links::{FdLink, LinkType, PinnedLink},
    loaded_links, loaded_programs,
};
use aya_obj::{Object, ProgramSection};

use super::super::facts::{Hook, Label, Owner, Program};
use crate::dataplane::{OBJECT, attach, kernel};

/// Whether the program takes packets in several buffers.
pub(super) fn frags() -> bool {
    let Ok(object) = Object::parse(OBJECT) else {
        return false;
    };
    object
        .programs
        .get(kernel::ENTRY)
        .is_some_and(|program| matches!(program.section, ProgramSection::Xdp { frags: true, .. }))
}

/// What is to be known of an attached program.
pub(super) fn program(id: u32, hook: Hook, pins: &Path, interface: u32) -> Program {
    let label = loaded_programs()
        .filter_map(Result::ok)
        .find(|program| program.id() == id)
        .map(|program| Label {
            name: program.name_as_str().unwrap_or_default().to_owned(),
            tag: program.tag(),
        });
    let owner = if is_ours(id, pins, interface) {
        Owner::Ours
    } else if !super::privileged() {
        Owner::Unknown
    } else {
        Owner::Foreign {
            holders: holders(id),
            link: loaded_links()
                .filter_map(Result::ok)
                .find(|link| {
                    link.program_id() == id && matches!(link.link_type(), Ok(LinkType::Xdp))
                })
                .map(|link| link.id()),
        }
    };
    Program {
        id,
        hook,
        label,
        owner,
    }
}

/// Whether a link to this interface is pinned here, or the program itself.
fn is_ours(id: u32, pins: &Path, interface: u32) -> bool {
    let link = PinnedLink::from_pin(pins.join(format!("{}{interface}", attach::LINK)));
    // A controller that died between the two left its program attached by the link alone.
    link.is_ok_and(|link| {
        FdLink::from(link)
            .info()
            .is_ok_and(|info| info.program_id() == id)
    }) || ProgramInfo::from_pin(pins.join(attach::PROGRAM)).is_ok_and(|info| info.id() == id)
}

/// The processes that hold a program or a link to it open, as `name (pid)`.
fn holders(id: u32) -> Vec<String> {
    let line = format!("prog_id:\t{id}");
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let holds = |process: &Path| {
        // A process may end meanwhile, or be somebody else's: then it is not seen to hold anything.
        fs::read_dir(process.join("fdinfo"))
            .into_iter()
            .flatten()
            .filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok())
            .any(|text| text.lines().any(|l| l == line))
    };
    processes
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let process = entry.path();
            if !holds(&process) {
                return None;
            }
            let name = fs::read_to_string(process.join("comm")).ok()?;
            Some(format!("{} ({pid})", name.trim()))
        })
        .collect()
}
