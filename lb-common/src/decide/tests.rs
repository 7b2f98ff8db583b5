//! The decision on the host, held against literal bytes and whole tables of what may happen.

mod bed;
mod choose;
mod measure;
mod quick;
mod snat;
mod track;
mod translate;
mod tunnel;
