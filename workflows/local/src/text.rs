//! Text for people: aligned columns and shortened values.

use std::borrow::Cow;

use sluice_manifest::text::one_line;

/// Returns rows as aligned columns, without spaces at line ends. Columns in `right` are
/// right-aligned. A cell is always printed on one line.
pub fn columns(rows: &[Vec<String>], right: &[usize], indent: &str) -> String {
    let rows: Vec<Vec<Cow<'_, str>>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| one_line(cell)).collect())
        .collect();
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = indent.to_owned();
        for (column, cell) in row.iter().map(|cell| &**cell).enumerate() {
            let space = " ".repeat(widths[column] - cell.chars().count());
            if column > 0 {
                line.push_str("  ");
            }
            if right.contains(&column) {
                line.extend([space.as_str(), cell])
            } else {
                line.extend([cell, space.as_str()])
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Returns at most `limit` characters of a text, on one line.
pub fn shorten(text: &str, limit: usize) -> String {
    let mut short: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(limit + 1)
        .collect();
    if short.chars().count() > limit {
        short = short.chars().take(limit.saturating_sub(1)).collect();
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [
            vec!["a".into(), "1".into()],
            vec!["bcd".into(), "22".into()],
        ];
        assert_eq!(columns(&rows, &[1], "> "), "> a     1\n> bcd  22\n");
        let rows = [vec!["\x1b[2J\nkept".into()]];
        assert_eq!(columns(&rows, &[], ""), "\\u001b[2J\\u000akept\n");
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(shorten("äöü\n4", 5), "äöü 4");
        assert_eq!(shorten("123456", 5), "1234…");
    }
}
