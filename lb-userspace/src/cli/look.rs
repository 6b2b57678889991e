//! How data looks for people: how much of it, and how wide.

use std::fmt::Write as _;
use std::io;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// How much of a table is shown, and how wide it may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    /// With the columns that few need.
    pub(super) wide: bool,
    /// What a line has room for; `None` if it may be of any length.
    pub(super) columns: Option<u16>,
}

/// What a line of the terminal has room for, if there is one.
pub(super) fn terminal_columns() -> Option<u16> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    Some(size.ws_col).filter(|columns| *columns > 0)
}

/// A column of a table.
pub(super) struct Column {
    title: &'static str,
    is_number: bool,
    is_extra: bool,
}

impl Column {
    /// A column of words.
    pub(super) const fn words(title: &'static str) -> Self {
        Self { title, is_number: false, is_extra: false }
    }

    /// A column of numbers.
    pub(super) const fn number(title: &'static str) -> Self {
        Self { title, is_number: true, is_extra: false }
    }

    /// One that few need.
    #[must_use]
    pub(super) const fn extra(self) -> Self {
        Self { is_extra: true, ..self }
    }
}

impl Look {
    /// Columns without lines, numbers to the right. Where a line has no room for that, a paragraph for each row.
    pub(super) fn table<const N: usize>(
        self,
        columns: &[Column; N],
        rows: impl Iterator<Item = [String; N]>,
    ) -> String {
        let shown: Vec<&Column> = columns.iter().filter(|column| self.wide || !column.is_extra).collect();
        let keep = |row: [String; N]| -> Vec<String> {
            let cells = row.into_iter().zip(columns);
            cells.filter(|(_, column)| self.wide || !column.is_extra).map(|(cell, _)| cell).collect()
        };
        let rows: Vec<Vec<String>> = rows.map(keep).collect();
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_header(shown.iter().map(|column| column.title))
            .add_rows(&rows);
        for (column, shown) in table.column_iter_mut().zip(&shown) {
            column.set_padding((0, 2));
            if shown.is_number {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let text = lines(&table);
        match self.columns {
            Some(room) if !fits(&text, room) => paragraphs(&shown, &rows, room),
            _ => text,
        }
    }

    /// Breaks lines that there is no room for between words; what follows is indented.
    pub(super) fn fold(self, text: &str) -> String {
        let Some(room) = self.columns.filter(|room| !fits(text, *room)) else { return text.to_owned() };
        let mut folded = String::new();
        for line in text.lines() {
            let mut used = 0;
            for word in line.split_inclusive(' ') {
                let length = word.trim_end().chars().count();
                if used > INDENT && used + length > usize::from(room) {
                    folded.truncate(folded.trim_end_matches(' ').len());
                    folded.push('\n');
                    folded.push_str(&" ".repeat(INDENT));
                    used = INDENT;
                }
                folded.push_str(word);
                used += word.chars().count();
            }
            folded.truncate(folded.trim_end_matches(' ').len());
            folded.push('\n');
        }
        folded
    }
}

/// Spaces before what has no room in the line before.
const INDENT: usize = 2;

fn fits(text: &str, room: u16) -> bool {
    text.lines().all(|line| line.chars().count() <= usize::from(room))
}

fn lines(table: &Table) -> String {
    let mut text = String::new();
    for line in table.lines() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// A paragraph for each row: a line for each cell, or more if there is no room for it.
fn paragraphs(columns: &[&Column], rows: &[Vec<String>], room: u16) -> String {
    let paragraph = |row: &Vec<String>| {
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(room);
        table.add_rows(columns.iter().zip(row).map(|(column, cell)| [column.title, cell]));
        for column in table.column_iter_mut() {
            column.set_padding((0, 1));
        }
        lines(&table)
    };
    rows.iter().map(paragraph).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: fn() -> [Column; 3] =
        || [Column::words("NAME"), Column::number("PACKETS"), Column::words("WHY").extra()];

    fn show(wide: bool, columns: Option<u16>) -> String {
        let row = |name: &str, packets: &str| {
            [name, packets, "because a sentence is longer than that"].map(str::to_owned)
        };
        Look { wide, columns }.table(&COLUMNS(), [row("web", "1"), row("dns", "20")].into_iter())
    }

    #[test]
    fn a_table_has_the_columns_that_are_asked_for() {
        assert_eq!(show(false, None), "NAME  PACKETS\nweb         1\ndns        20\n");
        assert_eq!(show(false, Some(13)), show(false, None));
        assert!(show(true, None).starts_with("NAME  PACKETS  WHY\nweb         1  because a"));
    }

    #[test]
    fn where_there_is_no_room_rows_are_paragraphs() {
        assert_eq!(show(false, Some(12)), "NAME    web\nPACKETS 1\n\nNAME    dns\nPACKETS 20\n");
        let narrow = show(true, Some(30));
        assert!(fits(&narrow, 30), "{narrow}");
        let words: Vec<_> = narrow.split_whitespace().collect();
        assert!(words.join(" ").contains("because a sentence is longer than that"), "{narrow}");
    }

    #[test]
    fn lines_are_broken_between_words() {
        let look = Look { columns: Some(10), ..Look::default() };
        assert_eq!(look.fold("a long line of words\nshort\n"), "a long\n  line of\n  words\nshort\n");
        assert_eq!(look.fold("unbreakable-word x\n"), "unbreakable-word\n  x\n");
        assert_eq!(Look::default().fold("a long line of words\n"), "a long line of words\n");
    }
}
