//! A program's stderr: logged line by line, the last lines kept for errors.

use std::collections::VecDeque;
use std::io::Read;

/// Bytes of a line that are logged.
const LINE_BYTES: usize = 500;
/// Lines that an error repeats.
const LAST_LINES: usize = 10;

/// Logs a program's lines until the stream ends. Returns the last ones.
pub(super) fn follow(stream: impl Read, step: &str, unit: &str) -> Vec<String> {
    let mut last = VecDeque::new();
    each_line(stream, |line| {
        tracing::info!(step, unit, "{line}");
        if last.len() == LAST_LINES {
            last.pop_front();
        }
        last.push_back(line);
    });
    last.into()
}

/// Calls `each` for every line that is not empty, cut to [`LINE_BYTES`]. A carriage return ends a line
/// too: progress bars write nothing else. Control characters are left out.
fn each_line(mut stream: impl Read, mut each: impl FnMut(String)) {
    let mut buffer = [0; 4096];
    let mut line = Vec::new();
    let mut emit = |line: &mut Vec<u8>| {
        let cut = line.len() > LINE_BYTES;
        line.truncate(LINE_BYTES);
        let text = String::from_utf8_lossy(line);
        let visible = |c: &char| *c == '\t' || !c.is_control();
        let mut text: String = text.chars().filter(visible).collect();
        if cut {
            text.push('…');
        }
        if !text.trim().is_empty() {
            each(text);
        }
        line.clear();
    };
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        for &byte in &buffer[..count] {
            match byte {
                b'\n' | b'\r' => emit(&mut line),
                _ if line.len() <= LINE_BYTES => line.push(byte),
                _ => {}
            }
        }
    }
    emit(&mut line);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        each_line(text, |line| lines.push(line));
        lines
    }

    #[test]
    fn lines_end_at_line_feeds_and_carriage_returns() {
        assert_eq!(
            lines(b"one\r\n\n10%\r20%\rlast"),
            ["one", "10%", "20%", "last"]
        );
        assert!(lines(b"\n \n").is_empty());
    }

    #[test]
    fn long_lines_are_cut_and_control_characters_left_out() {
        let long = vec![b'x'; 100_000];
        let cut = lines(&long).remove(0);
        assert_eq!(cut.len(), LINE_BYTES + "…".len());
        assert!(cut.ends_with("x…"));
        assert_eq!(lines(b"\x1b[31mred\x1b[0m\t\xff"), ["[31mred[0m\t\u{fffd}"]);
        let fits = vec![b'x'; LINE_BYTES];
        assert_eq!(lines(&fits)[0].len(), LINE_BYTES);
    }

    #[test]
    fn the_last_lines_are_kept() {
        let text: String = (0..25).map(|number| format!("{number}\n")).collect();
        let last = follow(text.as_bytes(), "step", "unit");
        assert_eq!(last.len(), LAST_LINES);
        assert_eq!((&*last[0], &*last[9]), ("15", "24"));
    }
}
