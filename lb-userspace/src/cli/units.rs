//! Numbers as people read them.

/// Three significant digits and a decimal unit: `92.1k`, `3.81M`.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown, a float has fifteen")]
pub(super) fn count(number: u64) -> String {
    let mut scaled = number as f64;
    for unit in ["", "k", "M", "G", "T", "P"] {
        let text = three_digits(scaled);
        // What rounds up to 1000 belongs to the next unit.
        if text != "1000" && scaled < 1_000.0 {
            return format!("{text}{unit}");
        }
        scaled /= 1_000.0;
    }
    format!("{}E", three_digits(scaled))
}

/// What happens in a second, not below zero, as [`count`] has numbers.
#[expect(clippy::cast_sign_loss, reason = "rates are not negative")]
pub(super) fn rate(number: f64) -> String {
    if number < 99.95 { three_digits(number) } else { count(number.round() as u64) }
}

/// Every digit, in groups of three: `1 048 576`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| str::from_utf8(group).unwrap_or("")).collect();
    groups.join(" ")
}

fn three_digits(number: f64) -> String {
    let decimals = if number < 9.995 { 2 } else { usize::from(number < 99.95) };
    let text = format!("{number:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// The two largest units: `3d4h`, `4m`, `12s`.
pub(super) fn duration(seconds: u64) -> String {
    let units =
        [("d", seconds / 86_400), ("h", seconds / 3_600 % 24), ("m", seconds / 60 % 60), ("s", seconds % 60)];
    let first = units.iter().position(|(_, amount)| *amount > 0).unwrap_or(3);
    let shown = units.iter().skip(first).take(2).filter(|(_, amount)| *amount > 0 || seconds == 0);
    let words: Vec<String> = shown.map(|(unit, amount)| format!("{amount}{unit}")).collect();
    words.concat()
}

/// A moment, given in seconds since 1970: `2026-11-26 06:12:22 UTC`.
///
/// The calendar is Howard Hinnant's `civil_from_days`: eras of 400 years that begin with March.
pub(super) fn moment(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// A fraction from 0 to 1 as a percentage.
pub(super) fn percent(fraction: f64) -> String {
    format!("{:.1} %", fraction * 100.0)
}

/// A part of a whole as a percentage; the whole is not zero.
#[expect(clippy::cast_precision_loss, reason = "four digits are shown, a float has fifteen")]
pub(super) fn share(part: u64, whole: u64) -> String {
    percent(part as f64 / whole as f64)
}

/// A number and its noun: `1 service`, `2 services`.
pub(super) fn plural(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_three_digits() {
        let cases = [
            (0, "0"),
            (7, "7"),
            (999, "999"),
            (1_000, "1k"),
            (1_204, "1.2k"),
            (1_234, "1.23k"),
            (92_100, "92.1k"),
            (99_960, "100k"),
            (999_499, "999k"),
            (999_500, "1M"),
            (3_810_000, "3.81M"),
            (1_900_000_000, "1.9G"),
            (u64::MAX, "18.4E"),
        ];
        for (number, text) in cases {
            assert_eq!(count(number), text, "{number}");
        }
    }

    #[test]
    fn rates_have_three_digits_too() {
        let rates = [0.0, 0.25, 12.34, 99.94, 99.96, 1_204.5, 3_810_000.0];
        assert_eq!(rates.map(rate), ["0", "0.25", "12.3", "99.9", "100", "1.21k", "3.81M"]);
    }

    #[test]
    fn groups_have_three_digits() {
        let numbers = [0, 999, 1_000, 65_537, 1_048_576];
        assert_eq!(numbers.map(grouped), ["0", "999", "1 000", "65 537", "1 048 576"]);
    }

    #[test]
    fn durations_have_two_units() {
        let cases = [
            (0, "0s"),
            (12, "12s"),
            (60, "1m"),
            (245, "4m5s"),
            (3_605, "1h"),
            (273_600, "3d4h"),
            (259_200, "3d"),
        ];
        for (seconds, text) in cases {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn moments_are_dates_and_times() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (951_868_800, "2000-03-01 00:00:00 UTC"),
            (1_795_672_342, "2026-11-26 05:52:22 UTC"),
            (4_102_444_800, "2100-01-01 00:00:00 UTC"),
        ] {
            assert_eq!(moment(seconds), text);
        }
    }

    #[test]
    fn one_is_singular() {
        assert_eq!(
            [plural(0, "backend"), plural(1, "backend"), plural(2, "backend")],
            ["0 backends", "1 backend", "2 backends"]
        );
    }
}
