//! Text that is no TOML: where it goes wrong, in which field, and what it should be.

use std::ops::Range;

use toml::de::{DeTable, DeValue, Error};

use super::findings::Report;

/// What a field is called where none is to blame.
const WHOLE: &str = "file";
/// So many mistakes are told: what follows one may be its consequence.
const MOST: usize = 20;
/// So many are looked at: a file that is something else altogether has one in each line.
const LOOKED_AT: usize = 200;

/// Reports every mistake, or the one that stopped the reading.
pub(super) fn report(text: &str, first: &Error, report: &mut Report<'_>) {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut reported: Vec<String> = Vec::new();
    for error in errors.iter().take(LOOKED_AT).chain([first]) {
        let at = error.span().unwrap_or(0..0);
        let key = last_key(document.get_ref(), text, at.start);
        let field = key.field(text, at.start);
        // A mistake has consequences, which say nothing more.
        if reported.contains(&field) || reported.len() == MOST {
            continue;
        }
        let problem = error.message().lines().collect::<Vec<_>>().join(", ");
        let open = key.is_open_list(text, at.start);
        let remedy = if open {
            "end the list with ']'"
        } else {
            remedy(text, &at)
        };
        report.add(at.clone(), &field, problem, remedy);
        if open {
            return;
        }
        reported.push(field);
    }
}

/// The field that a place belongs to.
pub(super) fn field(text: &str, at: usize) -> String {
    let (document, _) = DeTable::parse_recoverable(text);
    last_key(document.get_ref(), text, at).field(text, at)
}

/// The last key at or before a place.
#[derive(Default)]
struct Key {
    at: usize,
    /// With its table; empty where there is none.
    path: String,
}

fn last_key(document: &DeTable<'_>, text: &str, at: usize) -> Key {
    let end = line(text, at).1.end;
    let mut found = Key::default();
    search(document, "", end, &mut found);
    found
}

impl Key {
    fn is_in_line_of(&self, text: &str, at: usize) -> bool {
        !self.path.is_empty() && line(text, at).1.contains(&self.at)
    }

    /// Whether its value is a list that begins in its line, and a place is beyond that.
    fn is_open_list(&self, text: &str, at: usize) -> bool {
        let value = line(text, self.at)
            .0
            .split_once('=')
            .map(|(_, value)| value.trim());
        !self.is_in_line_of(text, at)
            && value.is_some_and(|value| value.starts_with('[') && !value.ends_with(']'))
    }

    /// The field: the key itself, or its neighbour whose line could not be read at all.
    fn field(&self, text: &str, at: usize) -> String {
        let own = line(text, at).0.trim_start();
        let end = own.find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '-'));
        let word = &own[..end.unwrap_or(own.len())];
        if self.is_in_line_of(text, at) || self.is_open_list(text, at) || word.is_empty() {
            return if self.path.is_empty() {
                WHOLE.to_owned()
            } else {
                self.path.clone()
            };
        }
        // Another of the same table, unless the last key was the header of a table itself.
        let table = if line(text, self.at).0.trim_start().starts_with('[') {
            self.path.as_str()
        } else {
            self.path.rsplit_once('.').map_or("", |(table, _)| table)
        };
        let dot = if table.is_empty() { "" } else { "." };
        format!("{table}{dot}{word}")
    }
}

fn search(table: &DeTable<'_>, path: &str, end: usize, found: &mut Key) {
    for (key, value) in table {
        let dot = if path.is_empty() { "" } else { "." };
        // A key may be anything; this is read by people.
        let name: String = key.get_ref().chars().flat_map(char::escape_debug).collect();
        let name = if name.is_empty() {
            "\"\"".to_owned()
        } else {
            name
        };
        let path = format!("{path}{dot}{name}");
        descend(value.get_ref(), &path, (key.span().start, end), found);
    }
}

fn descend(value: &DeValue<'_>, path: &str, (at, end): (usize, usize), found: &mut Key) {
    if at < end && at >= found.at {
        *found = Key {
            at,
            path: path.to_owned(),
        };
    }
    match value {
        DeValue::Table(inner) => search(inner, path, end, found),
        DeValue::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                if let DeValue::Table(inner) = item.get_ref() {
                    search(inner, &format!("{path}[{index}]"), end, found);
                }
            }
        }
        _ => {}
    }
}

/// The line that holds a place, and where it is.
fn line(text: &str, at: usize) -> (&str, Range<usize>) {
    let at = text.floor_char_boundary(at);
    let start = text[..at].rfind('\n').map_or(0, |end| end + 1);
    let end = text[at..].find('\n').map_or(text.len(), |end| at + end);
    (&text[start..end], start..end)
}

/// What a line looks as if it should have been.
fn remedy(text: &str, at: &Range<usize>) -> &'static str {
    let (line, _) = line(text, at.start);
    let line = line.trim();
    if line.starts_with('[') && !line.contains('=') {
        return "write a table as [name], one of several as [[name]], each table once";
    }
    let Some((_, value)) = line.split_once('=') else {
        return "write key = value; docs/evenkeel.toml shows the shape of the file";
    };
    let value = value.trim();
    if value.is_empty() {
        return "give a value after the '='";
    }
    if value.starts_with('"') {
        return if value.len() > 1 && value.ends_with('"') {
            "write each key once, and '\\' and control characters as \\\\ and \\u0000"
        } else {
            "end the text with a double quote in the same line"
        };
    }
    if value.starts_with('[') && !value.ends_with(']') {
        return "end the list with ']'";
    }
    let bare = ["true", "false", "inf", "nan"];
    if value.starts_with(char::is_alphabetic) && !bare.contains(&value) {
        return "put text into double quotes, as in \"web\"";
    }
    if value.matches('.').count() > 1 || value.contains(':') {
        return "put addresses into double quotes, as in \"198.51.100.10\"";
    }
    "write a number without leading zeroes, text in double quotes, each key once"
}
