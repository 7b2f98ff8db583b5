//! `evenkeel incident`: what is being dealt with, by whom, and what became of it.

use std::{fmt::Write as _, path::PathBuf};

use clap::{Args, Subcommand};

use super::{
    ADMIN_SOCKET, Answer, STATE_DIRECTORY, change,
    note::{now_ms, user},
    output::{self, plain},
    status::ago,
};
use crate::{
    admin::{
        client::{Client, ClientError},
        proto::incident::{Action, Done, Incident, Wish},
    },
    incident::{self, Book},
    journal::{self, Event, Filter, Kind, Reader, Record},
};

/// The longest text, in bytes.
const LONGEST: usize = 4096;
/// Steps of an incident that are shown.
const STEPS: u32 = 100_000;

/// Open, acknowledge, annotate and close incidents, and list them
///
/// An alert of severity 'page' opens one by itself, of its service or of the whole host. Alerts of the
/// same service join it. Once all of them are over it is mitigated, and once it has been quiet for a
/// while, as configured, it is closed. People may do all of that as well; what they
/// open, they close.
///
/// Every step is an event in the journal, and nothing else keeps them. They can be taken while no
/// controller runs, too: the next one goes on from there.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sudo evenkeel incident list
  sudo evenkeel incident ack
  sudo evenkeel incident note 20261126-1 --text 'the weight of b2 was a slip'
  sudo evenkeel incident close 20261126-1 --text 'weight put back'
  sudo evenkeel incident open 'users say that pages are slow' --service web
  sudo evenkeel incident show 20261126-1
  sudo evenkeel report --incident 20261126-1

Where one incident is open, ack, note and close need no name. With --json, open, ack, note and close
print {message, incident}, list prints a list of incidents, and show prints {incident, steps}; an
incident is {id, state, service, drill, text, opened_by, opened_at_ms, start_ms, acknowledged_by,
acknowledged_at_ms, mitigated_at_ms, closed_at_ms, alerts}.

Exit codes:
  0  done, or shown, even if there is none
  1  refused: there is no such incident, or it is closed or acknowledged already
  2  it could not be done, or wrong usage")]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Open one: of a service, or of the whole host
    Open {
        /// What is wrong
        text: String,
        /// The service that it is about
        #[arg(long, value_name = "NAME")]
        service: Option<String>,
        /// The drill that it belongs to; reports say so
        #[arg(long, value_name = "NAME")]
        drill: Option<String>,
        #[command(flatten)]
        places: Places,
    },
    /// Say that you have it in hand
    Ack(About),
    /// Write something down about it
    Note(About),
    /// Say that it is over
    Close(About),
    /// List those that are open
    List {
        /// Those that are closed, too
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        places: Places,
    },
    /// Show one, with its steps
    Show {
        /// Its name
        id: String,
        #[command(flatten)]
        places: Places,
    },
}

#[derive(Debug, Args)]
struct About {
    /// Its name [default: the only one that is open]
    id: Option<String>,
    /// What there is to say
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,
    #[command(flatten)]
    places: Places,
}

#[derive(Debug, Args)]
struct Places {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The controller's admin socket
    #[arg(long, value_name = "PATH", env = "EVENKEEL_SOCKET", default_value = ADMIN_SOCKET)]
    socket: PathBuf,
    /// The state directory of the controller
    #[arg(long, value_name = "DIRECTORY", env = "EVENKEEL_STATE", default_value = STATE_DIRECTORY)]
    state: PathBuf,
}

/// Does what is asked.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    let about = |action, of: &About| Wish {
        action,
        id: of.id.clone(),
        service: None,
        drill: None,
        text: of.text.clone(),
    };
    match &arguments.what {
        What::Open {
            text,
            service,
            drill,
            places,
        } => {
            let wish = Wish {
                action: Action::Open,
                id: None,
                service: service.clone(),
                drill: drill.clone(),
                text: Some(text.clone()),
            };
            wanted(&wish, places)
        }
        What::Ack(of) => wanted(&about(Action::Ack, of), &of.places),
        What::Note(of) => wanted(&about(Action::Note, of), &of.places),
        What::Close(of) => wanted(&about(Action::Close, of), &of.places),
        What::List { all, places } => list(*all, places),
        What::Show { id, places } => show(id, places),
    }
}

/// Asks the controller; where none runs, writes into the journal what it would have.
fn wanted(wish: &Wish, places: &Places) -> anyhow::Result<Answer> {
    let length = wish.text.as_ref().map_or(0, String::len);
    anyhow::ensure!(
        length <= LONGEST,
        "the text is {length} bytes long: shorten it to {LONGEST}"
    );
    let asked = change::block_on(async { Client::new(&places.socket).incident(wish).await })?;
    let done = match asked {
        Ok(done) => done,
        Err(ClientError::NoController { .. }) => {
            let now_ms = now_ms();
            let mut book = match journal::incidents::read(&places.state, now_ms) {
                Err(journal::Error::Missing(_)) => Book::default(),
                book => book?,
            };
            let by = user();
            let step = match book.wish(now_ms, &by, wish) {
                Ok(step) => step,
                Err(refusal) => return refused(&refusal, places.json),
            };
            let event = journal::incidents::event(now_ms, &step);
            journal::append_one(&places.state, &Event { actor: by, ..event })?;
            let incident = book.named(&step.id).map(incident::Incident::shown);
            Done {
                message: step.describe() + "; no controller runs, it is in the journal",
                incident: incident.expect("it was opened before the step, or by it"),
            }
        }
        Err(error) => return change::refusal(error, places.json),
    };
    if places.json {
        change::print_json(&done)?;
    } else {
        output::print(&(plain(&done.message) + "\n"))?;
    }
    Ok(Answer::Yes)
}

/// Tells why the journal took nothing.
fn refused(refusal: &incident::Refusal, json: bool) -> anyhow::Result<Answer> {
    if json {
        change::print_json(&serde_json::json!({ "error": refusal.to_string(), "findings": [] }))?;
    } else {
        output::complain(&format!("refused: {}", plain(&refusal.to_string())));
    }
    Ok(Answer::No)
}

fn list(all: bool, places: &Places) -> anyhow::Result<Answer> {
    let now_ms = now_ms();
    let book = journal::incidents::read(&places.state, now_ms)?;
    let incidents = book.all().iter().filter(|of| all || of.closed_ms.is_none());
    let incidents: Vec<Incident> = incidents.map(incident::Incident::shown).collect();
    if places.json {
        change::print_json(&incidents)?;
        return Ok(Answer::Yes);
    }
    let lines: Vec<String> = incidents.iter().map(|of| line(of, now_ms)).collect();
    let text = match (lines.is_empty(), all) {
        (true, true) => "no incident is known\n".to_owned(),
        (true, false) => "no incident is open\n".to_owned(),
        _ => lines.concat(),
    };
    output::print(&text)?;
    Ok(Answer::Yes)
}

/// An incident in a line.
pub(super) fn line(of: &Incident, now_ms: u64) -> String {
    let about = of.service.as_deref().unwrap_or("the whole host");
    let drill = of.drill.as_ref().map(|drill| format!(", drill {drill}"));
    let acknowledged = match &of.acknowledged_by {
        Some(by) => format!("acknowledged by {by}"),
        None => "not acknowledged".to_owned(),
    };
    let state = match (of.closed_at_ms, of.mitigated_at_ms) {
        (Some(at), _) => format!("closed {} ago", ago(now_ms, at)),
        (None, Some(at)) => format!("mitigated {} ago, {acknowledged}", ago(now_ms, at)),
        (None, None) => format!("open for {}, {acknowledged}", ago(now_ms, of.opened_at_ms)),
    };
    let line = format!(
        "{}  {about}{}, {state}: {}",
        of.id,
        drill.unwrap_or_default(),
        of.text
    );
    plain(&line) + "\n"
}

fn show(id: &str, places: &Places) -> anyhow::Result<Answer> {
    let now_ms = now_ms();
    let filter = Filter {
        kind: Some(Kind::Incident.word().to_owned()),
        ..Filter::default()
    };
    let records = Reader::open(&places.state)?.last(&filter, STEPS)?;
    let book = Book::read(now_ms, records.iter().map(|of| (of.at_ms, &of.detail)));
    let Some(found) = book.named(id) else {
        return refused(&incident::Refusal::Unknown(id.to_owned()), places.json);
    };
    let found = found.shown();
    let steps: Vec<&Record> = records.iter().filter(|of| of.detail["id"] == id).collect();
    if places.json {
        change::print_json(&serde_json::json!({ "incident": found, "steps": steps }))?;
        return Ok(Answer::Yes);
    }
    let mut text = line(&found, now_ms);
    for alert in &found.alerts {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  alert {}", plain(alert));
    }
    for step in steps {
        let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(step.at_ms);
        let at = humantime::format_rfc3339_seconds(at);
        let _ = writeln!(text, "  {at}  {}", plain(&step.message));
    }
    output::print(&text)?;
    Ok(Answer::Yes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incident_is_a_line_that_cannot_steer_a_terminal() {
        let mut of = Incident {
            id: "20261126-1".to_owned(),
            state: "open".to_owned(),
            service: Some("web".to_owned()),
            drill: None,
            text: "TrafficSkewed: web: b2\x1b[2J gets 2.0x its share".to_owned(),
            opened_by: "controller".to_owned(),
            opened_at_ms: 1000,
            start_ms: 900,
            acknowledged_by: None,
            acknowledged_at_ms: None,
            mitigated_at_ms: None,
            closed_at_ms: None,
            alerts: vec!["TrafficSkewed web/b2".to_owned()],
        };
        assert_eq!(
            line(&of, 61_000),
            "20261126-1  web, open for 1m, not acknowledged: TrafficSkewed: web: b2\\u{1b}[2J gets 2.0x \
             its share\n"
        );
        of.service = None;
        of.drill = Some("skew".to_owned());
        of.acknowledged_by = Some("ann".to_owned());
        of.mitigated_at_ms = Some(31_000);
        let shown = line(&of, 61_000);
        assert!(
            shown.contains("the whole host, drill skew, mitigated 30s ago, acknowledged by ann"),
            "{shown}"
        );
        of.closed_at_ms = Some(61_000);
        assert!(line(&of, 121_000).contains("closed 1m ago"));
    }
}
