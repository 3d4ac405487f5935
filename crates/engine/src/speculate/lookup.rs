//! Prompt lookup (Saxena, "Prompt Lookup Decoding", 2023): what followed the last time that the text ended like this.

/// Tokens that must repeat before anything is guessed from it.
const LEAST: usize = 3;
/// Repeating more than this makes no better match.
const MOST: usize = 8;

/// Up to `max` guesses at what follows `sequence`: the continuation of the longest earlier match with its end, the
/// latest among equals. Where that continuation reaches the end of the sequence it goes round.
pub(crate) fn guess(sequence: &[u32], max: usize) -> Vec<u32> {
    let len = sequence.len();
    let (mut best, mut longest) = (0, LEAST - 1);
    for at in (LEAST..len).rev() {
        let same = sequence[..at].iter().rev().zip(sequence.iter().rev()).take(MOST);
        let matched = same.take_while(|(a, b)| a == b).count();
        if matched > longest {
            (best, longest) = (at, matched);
            if longest == MOST {
                break;
            }
        }
    }
    let period = len - best;
    (0..if best == 0 { 0 } else { max }).map(|i| sequence[best + i % period]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_match_is_continued_the_latest_among_equals() {
        assert_eq!(guess(&[1, 2, 3, 4, 5, 9, 1, 2, 3], 2), [4, 5]);
        assert_eq!(guess(&[1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3], 1), [5]);
        assert_eq!(guess(&[7, 1, 2, 3, 4, 1, 2, 3, 5, 7, 1, 2, 3], 1), [4], "four tokens match there");
    }

    #[test]
    fn what_repeats_goes_on_repeating() {
        assert_eq!(guess(&[4; 4], 3), [4; 3]);
        assert_eq!(guess(&[1, 2, 3, 1, 2, 3, 1], 7), [2, 3, 1, 2, 3, 1, 2]);
    }

    #[test]
    fn nothing_is_guessed_from_nothing() {
        for sequence in [&[][..], &[1], &[1, 2, 3], &[1, 2, 9, 1, 2], &[1, 2, 3, 4, 5, 6]] {
            assert!(guess(sequence, 8).is_empty(), "{sequence:?}");
        }
        assert!(guess(&[4; 9], 0).is_empty());
    }
}
