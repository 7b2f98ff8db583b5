//! `evenkeel note`: writes something down in the journal.

use std::{
    env,
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::ensure;
use clap::Args;
use nix::unistd::{Uid, User};

use super::{Answer, STATE_DIRECTORY, output};
use crate::journal::{self, Event, Kind, Level};

/// The longest note, in bytes.
const LONGEST: usize = 4096;

/// Write a note into the journal, beside what the controller does and sees
///
/// It carries the time and who wrote it, and stands in 'evenkeel events' and in reports. It works
/// whether a controller runs or not.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sudo evenkeel note 'switch port of rack 4 replaced'
  sudo evenkeel note --service web 'users say that pages are slow'

Exit codes:
  0  it is in the journal
  2  it could not be written, or wrong usage")]
pub(super) struct Arguments {
    /// What to write down
    text: String,
    /// The service that it is about
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// The backend that it is about
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// The state directory of the controller
    #[arg(long, value_name = "DIRECTORY", env = "EVENKEEL_STATE", default_value = STATE_DIRECTORY)]
    state: PathBuf,
}

/// Writes the note.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    let text = arguments.text.trim();
    ensure!(!text.is_empty(), "an empty note says nothing: write one");
    ensure!(
        text.len() <= LONGEST,
        "the note is {} bytes long: shorten it to {LONGEST}",
        text.len()
    );
    let event = Event {
        service: arguments.service.clone(),
        backend: arguments.backend.clone(),
        actor: user(),
        ..Event::of_controller(now_ms(), Kind::Note, Level::Info, text)
    };
    journal::append_one(&arguments.state, &event)?;
    output::print("noted\n")?;
    Ok(Answer::Yes)
}

/// Who sits there: the user before sudo.
pub(super) fn user() -> String {
    let name = |uid: Uid| User::from_uid(uid).ok().flatten().map(|user| user.name);
    let before_sudo = env::var("SUDO_USER").ok().filter(|name| !name.is_empty());
    let uid = Uid::current();
    before_sudo
        .or_else(|| name(uid))
        .unwrap_or_else(|| format!("user {uid}"))
}

#[expect(clippy::disallowed_methods, reason = "a note is written now")]
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |time| time.as_millis() as u64)
}
