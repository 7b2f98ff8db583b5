//! `evenkeel top`: a live screen.

mod app;
mod draw;

use std::{env, io, path::PathBuf, thread, time::Duration};

use anyhow::{Context as _, ensure};
use clap::Args;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time,
};

use self::{
    app::{App, Next},
    draw::draw,
};
use super::{ADMIN_SOCKET, Answer, STATE_DIRECTORY};
use crate::{
    admin::client::Client,
    journal::{Filter, Reader, Record},
};

/// How many events are looked up: more than a screen shows.
const EVENTS: u32 = 60;
/// Keys that wait to be taken.
const KEYS: usize = 64;

/// Watch services, backends, rates, shares and events on a live screen
///
/// Services are at the top, the backends of the chosen one below with their shares, rates and the
/// last two minutes as bars, and the last events at the bottom. It looks and changes nothing.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sudo evenkeel top
  sudo evenkeel top --service web --every 5

Keys: q quits; up and down choose a service; f, p, b, d, l and c sort the backends by flows, packets,
bits, deviation from the intended share, latency and as configured; r turns that round; space stops
the screen; ? shows the keys. For scripts there is 'evenkeel status --json --watch'.

Events come from the journal in the state directory; who may not read that sees the rest.

Exit codes:
  0  ended by a key or a signal
  2  standard output is no terminal, the controller cannot be reached, or wrong usage")]
pub(super) struct Arguments {
    /// The controller's admin socket
    #[arg(long, value_name = "PATH", env = "EVENKEEL_SOCKET", default_value = ADMIN_SOCKET)]
    socket: PathBuf,
    /// The state directory of the controller
    #[arg(long, value_name = "DIRECTORY", env = "EVENKEEL_STATE", default_value = STATE_DIRECTORY)]
    state: PathBuf,
    /// The service to begin with
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// How often to look
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    every: u64,
}

/// Shows the screen until somebody ends it.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    ensure!(
        io::IsTerminal::is_terminal(&io::stdout()),
        "standard output is no terminal: 'evenkeel status --watch' prints into pipes and files"
    );
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot set up the client")?;
    runtime.block_on(watch(arguments))
}

async fn watch(arguments: &Arguments) -> anyhow::Result<Answer> {
    let client = Client::new(&arguments.socket);
    let signals = "cannot watch for signals";
    let mut terminate = signal(SignalKind::terminate()).context(signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).context(signals)?;
    let no_colour = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let mut app = App::new(arguments.service.clone(), !no_colour);
    // A controller that is not there from the start is an error; one that goes away is waited for.
    app.take(Ok(client.status().await?));
    if let Some(name) = &arguments.service {
        let known = app.services().iter().any(|service| service.name == *name);
        ensure!(
            known,
            "there is no service {name}: 'evenkeel status' shows those there are"
        );
    }
    app.take_events(last_events(arguments));
    let mut keys = keys();
    let mut ticks = time::interval(Duration::from_secs(arguments.every));
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    // Puts the terminal right at its end, also where this panics.
    let mut terminal = ratatui::try_init().context("cannot set up the terminal")?;
    let _restored = Restored;
    loop {
        terminal
            .draw(|frame| draw(frame, &app))
            .context("cannot draw")?;
        tokio::select! {
            _ = terminate.recv() => return Ok(Answer::Yes),
            _ = interrupt.recv() => return Ok(Answer::Yes),
            _ = ticks.tick() => {
                app.take(client.status().await.map_err(|e| format!("waiting: {e}")));
                app.take_events(last_events(arguments));
            }
            event = keys.recv() => match event {
                Some(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                    if app.press(key) == Next::End {
                        return Ok(Answer::Yes);
                    }
                }
                // A window of another size is drawn anew.
                Some(_) => {}
                // The terminal is gone.
                None => return Ok(Answer::Yes),
            },
        }
    }
}

/// Puts the terminal right.
struct Restored;

impl Drop for Restored {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// What the terminal says, from a thread that ends with the process: reading waits.
fn keys() -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel(KEYS);
    thread::spawn(move || {
        while let Ok(event) = event::read() {
            if sender.blocking_send(event).is_err() {
                break;
            }
        }
    });
    receiver
}

fn last_events(arguments: &Arguments) -> Result<Vec<Record>, String> {
    let journal = Reader::open(&arguments.state).map_err(|e| e.to_string())?;
    let events = journal.last(&Filter::default(), EVENTS);
    events.map_err(|e| e.to_string())
}
