//! Why a flow is remembered: for people who look.

use std::fmt;

use lb_common::{
    flow::Flow,
    layout::{FlowEntry, PINNED, flag},
};

use super::{View, is_paired, slot_of, views};
use crate::balance::{image::Image, transition::names_endpoint};

/// Why a flow is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its slot got another owner, and the flows of before are still waited for.
    Transition {
        /// Whose new flows of that slot are.
        owner: u16,
    },
    /// Its slot got another owner, and what is not remembered goes there.
    Pinned {
        /// Whose new flows of that slot are.
        owner: u16,
    },
    /// Its service remembers every flow.
    Every,
    /// Its packets are given another source, which its entry says.
    Translated,
    /// No longer: the sweeper is about to forget it.
    Over,
}

impl Why {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Transition { .. } => "transition",
            Self::Pinned { .. } => "pinned",
            Self::Every => "every",
            Self::Translated => "translated",
            Self::Over => "over",
        }
    }

    /// Whose new flows of its slot are, where that is why.
    #[must_use]
    pub const fn owner(self) -> Option<u16> {
        match self {
            Self::Transition { owner } | Self::Pinned { owner } => Some(owner),
            Self::Every | Self::Translated | Self::Over => None,
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Says why flows are remembered while packets follow an image.
#[derive(Debug)]
pub struct Reasons<'a> {
    image: &'a Image,
    views: Vec<View>,
}

impl<'a> Reasons<'a> {
    /// Looks at an image.
    #[must_use]
    pub fn of(image: &'a Image) -> Self {
        Self {
            image,
            views: views(image),
        }
    }

    /// Why a flow has this entry.
    #[must_use]
    pub fn why(&self, flow: &Flow, found: &FlowEntry) -> Why {
        if is_paired(found) {
            return Why::Translated;
        }
        let view = self.views.get(usize::from(found.service));
        let Some((vip, slots)) = view.and_then(|view| view.serving.as_ref()) else {
            return Why::Over;
        };
        if vip.flags & flag::REMEMBER != 0 {
            return Why::Every;
        }
        let at = slot_of(&self.image.tables, vip, flow);
        match slots.get(at) {
            // One that agrees with the owner goes there unremembered, too.
            Some(slot) if slot.prior() == PINNED && slot.owner() != found.endpoint => Why::Pinned {
                owner: slot.owner(),
            },
            Some(slot) if names_endpoint(slot.prior()) => Why::Transition {
                owner: slot.owner(),
            },
            _ => Why::Over,
        }
    }
}
