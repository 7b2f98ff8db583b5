//! Tables and packets by chance.

pub(crate) mod corpus;
pub(crate) mod packets;
pub(crate) mod tables;
