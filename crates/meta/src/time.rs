//! Timestamps in the two forms of the API: whole seconds (`Time`) and microseconds (`MicroTime`), always UTC.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;

/// `2026-11-21T10:58:00Z`, as `metadata.creationTimestamp` and most times are written.
pub fn rfc3339(at: Timestamp) -> String {
    let mut text = seconds(Offset::UTC.to_datetime(at));
    text.push('Z');
    text
}

/// `2026-11-21T10:58:00.123456Z`, as lease and event times are written.
pub fn rfc3339_micro(at: Timestamp) -> String {
    let at = Offset::UTC.to_datetime(at);
    let mut text = seconds(at);
    text.push('.');
    push_digits(&mut text, at.subsec_nanosecond().unsigned_abs() / 1000, 6);
    text.push('Z');
    text
}

/// Up to the seconds. Every object shows a time or two, so this is written out rather than interpreted.
fn seconds(at: DateTime) -> String {
    let mut text = String::with_capacity("2026-11-21T10:58:00.123456Z".len());
    if at.year() < 0 {
        text.push('-');
    }
    push_digits(&mut text, u32::from(at.year().unsigned_abs()), 4);
    for (before, part) in [('-', at.month()), ('-', at.day()), ('T', at.hour()), (':', at.minute()), (':', at.second())]
    {
        text.push(before);
        push_digits(&mut text, u32::from(part.unsigned_abs()), 2);
    }
    text
}

fn push_digits(text: &mut String, number: u32, count: u32) {
    let digits = (0..count).rev().map(|place| number / 10_u32.pow(place) % 10);
    text.extend(digits.filter_map(|digit| char::from_digit(digit, 10)));
}

/// Reads either form, and any other offset.
pub fn parse(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// How long ago `since` was, as `kubectl get` prints ages: `5s`, `3m5s`, `12m`, `5h7m`, `2d3h`, `40d`, `2y30d`.
pub fn human_age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second() - since.as_second();
    if seconds < -1 {
        return "<invalid>".to_string();
    }
    let seconds = seconds.max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let pair = |big: i64, unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{small_unit}") }
    };
    match () {
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => pair(minutes, "m", seconds % 60, "s"),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => pair(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if hours < 192 => pair(days, "d", hours % 24, "h"),
        () if days < 730 => format!("{days}d"),
        () if days < 8 * 365 => pair(days / 365, "y", days % 365, "d"),
        () => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_as_kubectl_prints_them() {
        let now: Timestamp = "2026-01-10T00:00:00Z".parse().unwrap();
        for (seconds, expected) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (185, "3m5s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (25_200 + 60, "7h1m"),
            (28_800, "8h"),
            (172_800, "2d"),
            (176_400, "2d1h"),
            (700_000, "8d"),
            (40_000_000, "462d"),
            (70_000_000, "2y80d"),
        ] {
            assert_eq!(human_age(now - std::time::Duration::from_secs(seconds), now), expected, "{seconds}");
        }
    }

    #[test]
    fn all_times_are_written_as_the_format_says() {
        let ends = [Timestamp::MIN, Timestamp::MAX].map(Timestamp::as_nanosecond);
        for nanos in ends.into_iter().chain([-1, 0, 1, -62_135_596_800_000_000_001, -999_000, 951_827_696_789_012_345])
        {
            let at = Timestamp::from_nanosecond(nanos).unwrap();
            assert_eq!(rfc3339(at), at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
            assert_eq!(rfc3339_micro(at), at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string());
        }
    }

    #[test]
    fn both_forms_round_trip() {
        let at = parse("2026-11-21T10:58:00.123456+02:00").unwrap();
        assert_eq!(rfc3339(at), "2026-11-21T08:58:00Z");
        assert_eq!(rfc3339_micro(at), "2026-11-21T08:58:00.123456Z");
    }
}
