//! A terminal that is drawn again and again, and put right at the end.

use std::io::{self, Stdout};

use rustix::termios::tcgetwinsize;

use crate::cli::output::{self, WriteError};

/// The other screen, without a cursor and without wrapping of long lines.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
const HOME: &str = "\x1b[H";
const CLEAR_LINE_END: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// The alternate screen; dropping it brings back what was there before.
pub(super) struct Screen {
    out: Stdout,
}

impl Screen {
    pub(super) fn enter() -> Result<Self, WriteError> {
        output::print(ENTER)?;
        Ok(Self { out: io::stdout() })
    }

    /// Draws over what is there: nothing is cleared before it is replaced, so nothing flickers.
    ///
    /// Lines must be shorter than the screen is wide: one that is not loses its end.
    pub(super) fn show(&self, text: &str) -> Result<(), WriteError> {
        let rows = size(&self.out).map_or(usize::MAX, |(_, rows)| rows);
        output::print(&frame(text, rows))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs no putting right.
        let _ = output::print(LEAVE);
    }
}

/// Columns and rows of the terminal at standard output, if it is one.
pub(super) fn size(out: &Stdout) -> Option<(usize, usize)> {
    let size = tcgetwinsize(out).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then(|| (size.ws_col.into(), size.ws_row.into()))
}

/// One picture of at most `rows` rows, the last of which says what did not fit.
fn frame(text: &str, rows: usize) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    if lines.len() > rows {
        let hidden = lines.len() - rows.saturating_sub(1);
        lines.truncate(rows.saturating_sub(1));
        lines.push(format!(
            "… {hidden} more lines: make the window higher, or leave out --watch"
        ));
    }
    let end = format!("{CLEAR_LINE_END}\r\n");
    format!("{HOME}{}{CLEAR_LINE_END}{CLEAR_BELOW}", lines.join(&end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_fits_its_screen_and_never_scrolls() {
        let text = "1\n2\n3\n4\n";
        assert_eq!(
            frame(text, 4),
            "\x1b[H1\x1b[K\r\n2\x1b[K\r\n3\x1b[K\r\n4\x1b[K\x1b[J"
        );
        assert_eq!(
            frame(text, 3),
            "\x1b[H1\x1b[K\r\n2\x1b[K\r\n… 2 more lines: make the window higher, or leave out \
             --watch\x1b[K\x1b[J"
        );
    }
}
