//! What is printed, and tables for people. JSON is made where the values are.

/// Prints a line. A reader that has gone (`| head`) is no reason to panic, as `println!` would.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}
pub(crate) use say;

/// Aligns columns: numbers to the right, words to the left.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|name| name.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let is_number = |text: &String| {
        text == "n/a"
            || text
                .chars()
                .next()
                .is_none_or(|first| first.is_ascii_digit())
    };
    let numbers: Vec<bool> = (0..header.len())
        .map(|column| rows.iter().filter_map(|row| row.get(column)).all(is_number))
        .collect();
    let line = |cells: Vec<&str>| {
        let mut text = String::new();
        for (index, (cell, &width)) in cells.iter().zip(&widths).enumerate() {
            if index > 0 {
                text.push_str("  ");
            }
            if numbers[index] {
                text.push_str(&format!("{cell:>width$}"));
            } else {
                text.push_str(&format!("{cell:<width$}"));
            }
        }
        text.trim_end().to_owned()
    };
    let mut lines = vec![line(header.to_vec())];
    lines.push(
        widths
            .iter()
            .map(|&width| "-".repeat(width))
            .collect::<Vec<_>>()
            .join("  "),
    );
    lines.extend(
        rows.iter()
            .map(|row| line(row.iter().map(String::as_str).collect())),
    );
    lines.join("\n")
}

/// A number a packet, short enough for a table: exact zero is told from almost nothing.
pub fn per_packet(value: f64) -> String {
    if value == 0.0 {
        "0".into()
    } else if value < 0.001 {
        format!("{value:.0e}")
    } else if value < 10.0 {
        format!("{value:.3}")
    } else {
        format!("{value:.0}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_nothing_trails() {
        let rows = [vec!["pool".into(), "12".into(), "fast".into()]];
        let text = table(&["policy", "n", "how"], &rows);
        assert_eq!(text, "policy   n  how\n------  --  ----\npool    12  fast");
    }

    #[test]
    fn zero_is_shown_as_zero_and_almost_zero_is_not() {
        assert_eq!(per_packet(0.0), "0");
        assert_eq!(per_packet(0.000_02), "2e-5");
        assert_eq!(per_packet(1.5), "1.500");
        assert_eq!(per_packet(1518.2), "1518");
    }
}
