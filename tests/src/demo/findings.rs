//! What was expected and what was seen.

use std::fmt;

/// Every comparison that the demo made, in order.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Finding>);

#[derive(Debug)]
struct Finding {
    what: String,
    expected: String,
    seen: String,
    good: bool,
}

impl Findings {
    /// Notes a comparison. `good` says whether what was seen is what was expected.
    pub(super) fn note(
        &mut self,
        what: &str,
        expected: impl Into<String>,
        seen: impl Into<String>,
        good: bool,
    ) {
        self.0.push(Finding { what: what.to_owned(), expected: expected.into(), seen: seen.into(), good });
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn good(&self) -> usize {
        self.0.iter().filter(|finding| finding.good).count()
    }

    pub(super) fn all_good(&self) -> bool {
        self.good() == self.len()
    }

    fn rows(&self) -> Vec<[&str; 4]> {
        let word = |good| if good { "ok" } else { "DIFFERS" };
        let header = ["WHAT", "EXPECTED", "SEEN", ""];
        let rows = self.0.iter().map(|f| [f.what.as_str(), &f.expected, &f.seen, word(f.good)]);
        std::iter::once(header).chain(rows).collect()
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.rows();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let [what, expected, seen] = [width(0), width(1), width(2)];
        for row in &rows {
            let line = format!("  {:what$}  {:expected$}  {:seen$}  {}", row[0], row[1], row[2], row[3]);
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_aligned_and_a_difference_counts() {
        let mut findings = Findings::default();
        findings.note("all answered", "300", "300", true);
        findings.note("spread", "three", "one", false);
        let expected = "  WHAT          EXPECTED  SEEN\n  all answered  300       300   ok\n  \
                        spread        three     one   DIFFERS\n";
        assert_eq!(findings.to_string(), expected);
        assert!(!findings.all_good());
    }
}
