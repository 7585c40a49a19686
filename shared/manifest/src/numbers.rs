//! Formats numbers for people.

/// Formats a number with thousands separators: `1,234,567`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats a number of bytes: `999 B`, `1.2 GB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut size = bytes as f64 / 1000.0;
    let mut unit = 0;
    while size >= 999.95 && unit + 1 < UNITS.len() {
        size /= 1000.0;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}

/// Formats a count with its noun: `1 shard`, `2 shards`.
pub fn plural(count: u64, noun: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{} {noun}{s}", thousands(count))
}

/// Formats a share as a percentage: `12.3%`.
pub fn percent(count: u64, of: u64) -> String {
    format!("{:.1}%", count as f64 * 100.0 / of.max(1) as f64)
}

/// Formats a duration: `0.12 s`, `75 s`, `12 min`, `3.4 h`.
pub fn duration(seconds: f64) -> String {
    match seconds {
        ..10.0 => format!("{seconds:.2} s"),
        ..120.0 => format!("{seconds:.0} s"),
        ..7200.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}

/// Formats a rate with two or three digits: `0.52`, `12.3`, `1,234`.
pub fn rate(number: f64) -> String {
    match number {
        ..10.0 => format!("{number:.2}"),
        ..100.0 => format!("{number:.1}"),
        _ => thousands(number.round() as u64),
    }
}

/// Formats a score or a similarity with as many digits as are needed to distinguish two.
pub fn decimal(value: f32) -> String {
    let text = format!("{value:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    match text {
        "" | "-" | "-0" => "0".to_owned(),
        text => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        let numbers = [0, 999, 1000, 1_234_567].map(thousands);
        assert_eq!(numbers, ["0", "999", "1,000", "1,234,567"]);
        let sizes = [999, 1000, 999_999, 8_600_000_000].map(bytes);
        assert_eq!(sizes, ["999 B", "1.0 kB", "1.0 MB", "8.6 GB"]);
        assert_eq!([1, 2].map(|n| plural(n, "shard")), ["1 shard", "2 shards"]);
        assert_eq!([percent(1, 3), percent(0, 0)], ["33.3%", "0.0%"]);
        let durations = [0.123, 75.4, 750.0, 12_345.0].map(duration);
        assert_eq!(durations, ["0.12 s", "75 s", "12 min", "3.4 h"]);
        assert_eq!([0.523, 12.34, 1234.4].map(rate), ["0.52", "12.3", "1,234"]);
    }

    #[test]
    fn decimals_are_short() {
        let numbers = [5.0, 0.25, -0.00001, 4.123_456].map(decimal);
        assert_eq!(numbers, ["5", "0.25", "0", "4.1235"]);
    }
}
