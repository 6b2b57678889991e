//! Reading what a test binary prints, libtest's format, which libtest-mimic prints too.

/// How many lines of what a failed test said are repeated at the end, where whoever sees only the end of a log looks.
const TOLD: usize = 8;

/// What came out of some tests or checks, each failure and each skip by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
    /// The first line of each is the name, the others are what it said.
    pub(crate) failures: Vec<String>,
    pub(crate) skips: Vec<String>,
    /// Which failure the lines being read are about, and how many more of them are kept.
    telling: Option<(usize, usize)>,
}

impl Tally {
    /// One check that passed.
    pub(crate) fn pass() -> Self {
        Self { passed: 1, ..Self::default() }
    }

    /// One check that failed.
    pub(crate) fn failure(name: String) -> Self {
        Self { failed: 1, failures: vec![name], ..Self::default() }
    }

    /// Something that was not done.
    pub(crate) fn skip(name: String) -> Self {
        Self { skipped: 1, skips: vec![name], ..Self::default() }
    }

    /// How many tests there were.
    pub(crate) fn total(&self) -> u64 {
        self.passed + self.failed + self.skipped
    }

    /// Adds what `other` counted.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.failures.extend(other.failures);
        self.skips.extend(other.skips);
    }

    /// The same count with the names saying that they are of `step`.
    pub(crate) fn named(mut self, step: &str) -> Self {
        self.failures
            .iter_mut()
            .chain(&mut self.skips)
            .for_each(|name| name.insert_str(0, &format!("{step}: ")));
        self
    }

    /// Takes one line of a test binary's output into account, and says whether it is the last one.
    pub(crate) fn read(&mut self, line: &str) -> bool {
        match Line::parse(line) {
            Line::Summary { passed, failed, skipped } => {
                self.passed += passed;
                self.failed += failed;
                self.skipped += skipped;
                return true;
            }
            Line::Failed { test } => self.failures.push(test.to_owned()),
            Line::Skipped { test, reason: "" } => self.skips.push(test.to_owned()),
            Line::Skipped { test, reason } => self.skips.push(format!("{test} ({reason})")),
            Line::Section { test } => {
                let failure = self.failures.iter().rposition(|failure| failure == test);
                self.telling = failure.map(|failure| (failure, TOLD));
            }
            Line::End => self.telling = None,
            Line::Other => self.tell(line),
        }
        false
    }

    fn tell(&mut self, line: &str) {
        let Some((failure, left)) = &mut self.telling else { return };
        if *left > 0 && !line.trim().is_empty() {
            *left -= 1;
            self.failures[*failure].extend(["\n", line]);
        }
    }

    /// A line for each name, with what it said under it.
    pub(crate) fn list(names: &[String]) -> String {
        names
            .iter()
            .flat_map(|name| ["  ".to_owned(), name.replace('\n', "\n    "), "\n".to_owned()])
            .collect()
    }

    /// The closing line.
    pub(crate) fn closing_line(&self) -> String {
        let skipped = if self.skipped == 0 { String::new() } else { format!(", {} skipped", self.skipped) };
        format!("{} passed, {} failed{skipped}", self.passed, self.failed)
    }
}

/// What one line of a test binary's output means.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    /// The line at the end of each test binary.
    Summary {
        passed: u64,
        failed: u64,
        skipped: u64,
    },
    Failed {
        test: &'a str,
    },
    /// `reason` is empty if none was given.
    Skipped {
        test: &'a str,
        reason: &'a str,
    },
    /// What a failed test said follows.
    Section {
        test: &'a str,
    },
    /// What failed tests said is over, or has not begun.
    End,
    Other,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Self {
        if let Some(counts) = line.strip_prefix("test result: ") {
            return Self::summary(counts);
        }
        if line == "failures:" {
            return Self::End;
        }
        if let Some(title) = line.strip_prefix("---- ").and_then(|title| title.strip_suffix(" ----")) {
            return Self::Section { test: title.strip_suffix(" stdout").unwrap_or(title) };
        }
        let Some(test) = line.strip_prefix("test ") else { return Self::Other };
        // A reason may contain anything, a name hardly the separator.
        match test.split_once(" ... ") {
            Some((name, "FAILED")) => Self::Failed { test: name.trim() },
            Some((name, outcome)) => match outcome.strip_prefix("ignored") {
                Some(reason) => Self::Skipped { test: name.trim(), reason: bare_reason(reason) },
                None => Self::Other,
            },
            None => Self::Other,
        }
    }

    /// `ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s`
    fn summary(counts: &str) -> Self {
        let counts = counts.split_once(". ").map_or(counts, |(_, counts)| counts);
        let count = |what: &str| {
            let number =
                counts.split(';').find_map(|part| part.trim().strip_suffix(what)?.trim().parse().ok());
            number.unwrap_or(0)
        };
        Self::Summary { passed: count("passed"), failed: count("failed"), skipped: count("ignored") }
    }
}

/// libtest writes `, reason` behind an outcome, libtest-mimic ` (reason)`.
fn bare_reason(text: &str) -> &str {
    let text = text.trim_start_matches([',', ' ']);
    text.strip_prefix('(').and_then(|text| text.strip_suffix(')')).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO_BINARIES: &str = "\nrunning 3 tests\ntest maglev::balance ... ok\ntest a::b ... ignored, needs root\n\
        test c - should panic ... FAILED\n\nfailures:\n\n---- c - should panic stdout ----\ntest looks like one\n\nno panic\n\n\
        failures:\n    c - should panic\n\n\
        test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 4 filtered out; finished in 1.25s\n\n\
        running 2 tests\ntest [host]   a truncated IPv6 header     ... ok\ntest [kernel] x ... ok\n\
        test y   ... ignored (needs CAP_BPF)\ntest z ... ignored\n\
        test result: ok. 2 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";

    #[test]
    fn sums_the_binaries_and_names_what_did_not_pass() {
        let mut tally = Tally::default();
        let ends = TWO_BINARIES.lines().filter(|line| tally.read(line)).count();
        assert_eq!(ends, 2);
        assert_eq!((tally.passed, tally.failed, tally.skipped), (3, 1, 3));
        assert_eq!(tally.failures, ["c - should panic\ntest looks like one\nno panic"]);
        assert_eq!(
            Tally::list(&tally.failures),
            "  c - should panic\n    test looks like one\n    no panic\n"
        );
        assert_eq!(tally.skips, ["a::b (needs root)", "y (needs CAP_BPF)", "z"]);
    }

    #[test]
    fn skips_appear_in_the_closing_line_only_if_there_are_any() {
        let mut tally = Tally::default();
        tally.add(Tally::pass().named("format"));
        tally.add(Tally::failure("clippy".to_owned()).named("lints"));
        assert_eq!(tally.closing_line(), "1 passed, 1 failed");
        assert_eq!(tally.failures, ["lints: clippy"]);
        tally.skipped = 2;
        assert_eq!(tally.closing_line(), "1 passed, 1 failed, 2 skipped");
    }
}
