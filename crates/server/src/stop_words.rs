//! Texts at which an answer ends. They are not part of it, so that what may become one is held back.

/// Finds the first of some texts in one that comes in pieces.
pub struct StopWords {
    words: Vec<String>,
    /// The end of the text, as long as it may be the beginning of a word.
    held: String,
    pub met: bool,
}

impl StopWords {
    pub fn new(words: Vec<String>) -> StopWords {
        StopWords {
            words: words.into_iter().filter(|word| !word.is_empty()).collect(),
            held: String::new(),
            met: false,
        }
    }

    /// What is certain of the text now.
    pub fn push(&mut self, text: &str) -> String {
        if self.met {
            return String::new();
        }
        self.held.push_str(text);
        if let Some(at) = self.words.iter().filter_map(|word| self.held.find(word.as_str())).min() {
            self.met = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let begun = |at: &usize| self.words.iter().any(|word| word.starts_with(&self.held[*at..]));
        let at = self.held.char_indices().map(|(at, _)| at).find(begun).unwrap_or(self.held.len());
        let rest = self.held.split_off(at);
        std::mem::replace(&mut self.held, rest)
    }

    /// The rest, at the end.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is let through of the pieces, and whether a word was met.
    fn through(words: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut stop = StopWords::new(words.iter().map(|word| (*word).into()).collect());
        let mut text: String = pieces.iter().map(|piece| stop.push(piece)).collect();
        text.push_str(&stop.finish());
        (text, stop.met)
    }

    #[test]
    fn the_first_word_ends_the_text_wherever_it_is_cut() {
        let text = "One.\nUser: 日本語 END";
        for cut in (0..=text.len()).filter(|at| text.is_char_boundary(*at)) {
            let (a, b) = text.split_at(cut);
            assert_eq!(through(&["END", "\nUser:"], &[a, b]), ("One.".into(), true));
            assert_eq!(through(&["本語"], &[a, b]), ("One.\nUser: 日".into(), true));
            assert_eq!(through(&["\nUser;", "ENDE", ""], &[a, b]), (text.into(), false));
        }
        let letters: Vec<String> = text.chars().map(String::from).collect();
        let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
        assert_eq!(through(&["END"], &letters), ("One.\nUser: 日本語 ".into(), true));
    }

    #[test]
    fn nothing_is_held_that_cannot_become_a_word() {
        let mut stop = StopWords::new(vec!["<end>".into()]);
        assert_eq!(stop.push("a<e"), "a");
        assert_eq!(stop.push("x<"), "<ex");
        assert_eq!(stop.push("end>b"), "");
        assert!(stop.met);
        assert_eq!(stop.push("c"), "");
    }
}
