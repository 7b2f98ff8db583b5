use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};
use serde_json::Value;

use super::*;
use crate::{admin::proto::Latency, cli::top::app::Next};

fn status() -> Status {
    serde_json::from_str(include_str!("../../status/render/fixture.json")).unwrap()
}

fn record(message: &str, level: &str) -> Record {
    Record {
        id: 1,
        at_ms: 1_799_999_990_000,
        kind: "health".to_owned(),
        level: level.to_owned(),
        service: None,
        backend: None,
        generation: 42,
        actor: "controller".to_owned(),
        message: message.to_owned(),
        detail: Value::Null,
    }
}

/// What is known after some seconds in which the rates of `web` rose.
fn app() -> App {
    let mut app = App::new(None, true);
    for second in 0..30 {
        let mut status = status();
        for backend in &mut status.services[0].backends {
            backend.new_flow_rate *= f64::from(second) / 29.0;
        }
        status.services[0].backends[0].response = Some(Latency {
            samples: 40.0,
            mean_ms: 9.2,
            median_ms: 8.5,
            p90_ms: 22.0,
            p99_ms: 120.4,
        });
        app.take(Ok(status));
    }
    app.take_events(Ok(vec![
        record("generation 42 published: web 2/3", "info"),
        record("web/b3 is down: 3 probes in a row failed\x1b[2J", "warning"),
    ]));
    app
}

fn screen(app: &App, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, app)).unwrap();
    let buffer = terminal.backend().buffer();
    let row = |y: u16| -> String {
        let cells = (0..width).map(|x| buffer[(x, y)].symbol());
        cells.collect::<String>().trim_end().to_owned() + "\n"
    };
    (0..height).map(row).collect()
}

#[track_caller]
fn assert_screen(found: &str, file: &str, expected: &str) {
    if std::env::var_os("EVENKEEL_BLESS").is_some() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli/top/draw/");
        std::fs::write(format!("{folder}{file}"), found).unwrap();
        return;
    }
    assert!(found == expected, "found:\n{found}\nexpected:\n{expected}");
}

#[test]
fn eighty_columns_are_enough() {
    let expected = include_str!("80x24.txt");
    assert_screen(&screen(&app(), 80, 24), "80x24.txt", expected);
}

#[test]
fn a_larger_terminal_shows_more() {
    let expected = include_str!("140x40.txt");
    assert_screen(&screen(&app(), 140, 40), "140x40.txt", expected);
}

fn press(app: &mut App, code: KeyCode) -> Next {
    app.press(KeyEvent::new(code, KeyModifiers::NONE))
}

#[test]
fn keys_choose_sort_stop_and_end() {
    let mut app = app();
    let order = |app: &App| -> Vec<String> {
        let service = &app.services()[app.position()];
        let sorted = app.sorted(service);
        sorted.iter().map(|backend| backend.name.clone()).collect()
    };
    assert_eq!(order(&app), ["b1", "b2", "b3"]);
    press(&mut app, KeyCode::Char('f'));
    assert_eq!(order(&app), ["b2", "b1", "b3"]);
    press(&mut app, KeyCode::Char('r'));
    assert_eq!(order(&app), ["b3", "b1", "b2"]);
    assert!(screen(&app, 80, 24).contains("sorted by flows, reversed"));
    press(&mut app, KeyCode::Down);
    assert_eq!(order(&app), ["ns1"]);
    press(&mut app, KeyCode::Down);
    assert_eq!(order(&app), ["ns1"], "that is the last");
    press(&mut app, KeyCode::Char(' '));
    app.take(Err("waiting".to_owned()));
    assert_eq!(app.problem, None, "it stays as it is");
    press(&mut app, KeyCode::Char(' '));
    app.take(Err("waiting: refused".to_owned()));
    assert!(screen(&app, 80, 24).contains("waiting: refused"));
    press(&mut app, KeyCode::Char('?'));
    assert!(screen(&app, 80, 24).contains("sort by deviation"));
    assert_eq!(press(&mut app, KeyCode::Esc), Next::On, "the keys go first");
    assert_eq!(press(&mut app, KeyCode::Esc), Next::End);
    assert_eq!(press(&mut app, KeyCode::Char('q')), Next::End);
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(app.press(interrupt), Next::End);
}

#[test]
fn the_chosen_service_is_kept_and_one_that_is_gone_is_not() {
    let mut app = App::new(Some("dns".to_owned()), false);
    app.take(Ok(status()));
    assert_eq!(app.position(), 1);
    let mut fewer = status();
    fewer.services.remove(0);
    app.take(Ok(fewer));
    assert_eq!(app.position(), 0);
    app.take(Ok(status()));
    assert_eq!(app.position(), 1);
    let mut none = status();
    none.services.clear();
    app.take(Ok(none));
    let text = screen(&app, 80, 24);
    assert!(text.starts_with("generation 42"), "{text}");
}

#[test]
fn any_size_is_drawn() {
    let mut app = app();
    for (width, height) in [(1, 1), (10, 3), (40, 10), (80, 5), (79, 24), (300, 100)] {
        screen(&app, width, height);
    }
    // More services than rows.
    let mut many = status();
    let one = many.services[0].clone();
    many.services.extend((0..200).map(|n| Service {
        name: format!("s{n}"),
        ..one.clone()
    }));
    app.take(Ok(many));
    for _ in 0..150 {
        press(&mut app, KeyCode::Down);
    }
    let text = screen(&app, 80, 24);
    assert!(text.contains(">s148"), "{text}");
    assert!(text.contains("keys"), "{text}");
    // More backends than rows.
    let mut many = status();
    let one = many.services[0].backends[0].clone();
    many.services[0].backends = (0..300)
        .map(|n| Backend {
            name: format!("b{n}"),
            ..one.clone()
        })
        .collect();
    app.chosen = None;
    app.take(Ok(many));
    let text = screen(&app, 80, 24);
    assert!(text.contains("\n291 more"), "{text}");
    assert!(text.contains("last events"), "{text}");
    // Nor does a controller that has not answered yet, nor one that has nothing to tell.
    screen(&App::new(None, true), 80, 24);
    app.take_events(Err("there is no journal".to_owned()));
    assert!(screen(&app, 80, 24).contains("no events: there is no journal"));
}
