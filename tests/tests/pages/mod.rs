//! The pages of the documentation, and the host that their commands run on.

pub(crate) mod page;
pub(crate) mod place;
