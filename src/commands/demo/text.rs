//! Plain text for a person at 80 columns.

use crate::commands::out::Lost;
pub(super) use crate::commands::out::say;

const WIDTH: usize = 78;

/// Text in lines of at most 78 characters, indented by two.
pub(super) fn paragraph(text: &str) -> Result<(), Lost> {
    wrapped(text).iter().try_for_each(say)
}

fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("  {word}")),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_stay_in_their_columns_and_lose_no_word() {
        let text = "word another-one ".repeat(40);
        let lines = wrapped(&text);
        assert!(lines.iter().all(|line| line.len() <= WIDTH && line.starts_with("  ")));
        let words: Vec<&str> = lines.iter().flat_map(|line| line.split_whitespace()).collect();
        assert_eq!(words, text.split_whitespace().collect::<Vec<_>>());
    }
}
