//! `evenkeel flows`: which flows are remembered, and why.

use std::path::PathBuf;

use clap::Args;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::{
    ADMIN_SOCKET, Answer, change,
    output::{self, plain},
    status::units::short,
};
use crate::admin::{
    client::Client,
    proto::flows::{Flow, Flows, MOST, Query, prefix},
};

/// Show the flows that are remembered, and why each is
///
/// Most flows are not: a slot that has had one owner for long needs no memory. Remembered are those
/// of slots that changed hands (why: transition, then pinned), all of a service with udp = "sticky"
/// (every) and of mode 'snat' (translated). When a flow began is not known; when it was last seen is.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  sudo evenkeel flows
  sudo evenkeel flows web --count 20
  sudo evenkeel flows web/b2 --client 203.0.113.0/24
  sudo evenkeel flows --json | jq '.flows[] | select(.why == \"pinned\")'

--json prints 'flows', how many entries were looked at ('looked_at'), and whether that was all of
them ('complete').

Exit codes:
  0  they were shown, even if there are none
  1  there is no such service or backend
  2  the controller cannot be asked, or wrong usage")]
pub(super) struct Arguments {
    /// Only those of this service, or of this backend of it
    #[arg(value_name = "SERVICE[/BACKEND]")]
    of: Option<String>,
    /// Only those of clients with this address, or within this prefix
    #[arg(long, value_name = "PREFIX", value_parser = client)]
    client: Option<String>,
    /// At most so many
    #[arg(long, short = 'n', value_name = "N", default_value_t = 100, value_parser = count)]
    count: usize,
    /// The controller's admin socket
    #[arg(long, value_name = "PATH", env = "EVENKEEL_SOCKET", default_value = ADMIN_SOCKET)]
    socket: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn client(text: &str) -> Result<String, String> {
    prefix(text).map(|prefix| prefix.to_string())
}

fn count(text: &str) -> Result<usize, String> {
    let wrong = || format!("not a number from 1 to {MOST}");
    let count = text.parse().map_err(|_| wrong())?;
    if (1..=MOST).contains(&count) {
        Ok(count)
    } else {
        Err(wrong())
    }
}

/// Asks and shows.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    let named = arguments.of.as_deref().map(|of| match of.split_once('/') {
        Some((service, backend)) => (service.to_owned(), Some(backend.to_owned())),
        None => (of.to_owned(), None),
    });
    let (service, backend) = named.unzip();
    let query = Query {
        service,
        backend: backend.flatten(),
        client: arguments.client.clone(),
        count: arguments.count,
    };
    let client = Client::new(&arguments.socket);
    let flows = match change::block_on(async { client.flows(&query).await })? {
        Ok(flows) => flows,
        Err(error) => return change::refusal(error, arguments.json),
    };
    if arguments.json {
        change::print_json(&flows)?;
    } else {
        output::print(&text(&flows))?;
    }
    Ok(Answer::Yes)
}

/// A table, and what it leaves out.
fn text(flows: &Flows) -> String {
    let mut text = String::new();
    if !flows.flows.is_empty() {
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .force_no_tty()
            .set_content_arrangement(ContentArrangement::Disabled);
        table.set_header([
            "client",
            "to",
            "service",
            "backend",
            "state",
            "silent s",
            "why",
            "new ones go to",
        ]);
        for flow in &flows.flows {
            table.add_row(row(flow).map(|cell| plain(&cell)));
        }
        if let Some(column) = table.column_mut(5) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let lines = table.lines().map(|line| line.trim_end().to_owned() + "\n");
        text.extend(lines);
    }
    let shown = flows.flows.len();
    let rest = match (shown, flows.complete) {
        (0, true) => "no such flow is remembered\n".to_owned(),
        (_, true) => format!("{shown} flows, all that are remembered of these\n"),
        (_, false) => format!(
            "{shown} flows of {} entries looked at; there are more: give --count or a filter\n",
            flows.looked_at
        ),
    };
    text + &rest
}

fn row(flow: &Flow) -> [String; 8] {
    let from = flow.from.map(|from| format!(" as {from}"));
    [
        format!(
            "{} {}{}",
            flow.protocol,
            flow.client,
            from.unwrap_or_default()
        ),
        flow.vip.to_string(),
        flow.service.clone(),
        flow.backend.clone(),
        flow.state.clone(),
        short(flow.silent_s),
        flow.why.clone(),
        flow.owner.clone().unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(why: &str, owner: Option<&str>, from: Option<&str>) -> Flow {
        Flow {
            service: "web".to_owned(),
            backend: "b2".to_owned(),
            protocol: "tcp".to_owned(),
            client: "10.10.1.2:40000".parse().unwrap(),
            vip: "198.51.100.10:80".parse().unwrap(),
            from: from.map(|from| from.parse().unwrap()),
            silent_s: 1.25,
            state: "established".to_owned(),
            why: why.to_owned(),
            owner: owner.map(str::to_owned),
        }
    }

    #[test]
    fn a_table_says_why_and_what_it_leaves_out() {
        let mut flows = Flows {
            flows: vec![
                flow("pinned", Some("b3"), None),
                flow("translated", None, Some("10.10.0.100:1024")),
            ],
            looked_at: 2,
            complete: true,
        };
        let found = text(&flows);
        let lines: Vec<&str> = found.lines().collect();
        assert!(lines[1].starts_with("tcp 10.10.1.2:40000 "), "{found}");
        assert!(lines[1].ends_with("pinned      b3"), "{found}");
        assert!(lines[2].contains("40000 as 10.10.0.100:1024"), "{found}");
        assert!(lines[2].ends_with("1.2  translated"), "{found}");
        assert_eq!(lines[3], "2 flows, all that are remembered of these");
        flows.complete = false;
        assert!(text(&flows).contains("2 flows of 2 entries looked at; there are more"));
        flows.flows.clear();
        flows.complete = true;
        assert_eq!(text(&flows), "no such flow is remembered\n");
    }

    #[test]
    fn a_count_is_bounded_and_a_client_is_a_prefix() {
        assert_eq!(count("1"), Ok(1));
        for wrong in ["0", "-1", "10001", "many"] {
            assert!(count(wrong).is_err(), "{wrong}");
        }
        assert_eq!(client("10.0.0.1").as_deref(), Ok("10.0.0.1/32"));
        assert!(client("web").is_err());
    }
}
