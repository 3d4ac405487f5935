//! Merging neighbours, best first: the heart of both SentencePiece and BPE. O(n log n) for a piece of n symbols.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

const NONE: u32 = u32::MAX;

/// A symbol in a doubly linked list; `length` 0 means that it was merged into its left neighbour.
struct Node<S> {
    symbol: S,
    previous: u32,
    next: u32,
    alive: bool,
}

/// Merges `symbols` until `rank` (lower is better) knows no pair any more. Equal ranks: the leftmost pair first.
/// `rank(a, b)` gives the pair's rank and what it becomes.
pub(crate) fn merge<S: Copy + PartialEq>(
    symbols: impl Iterator<Item = S>,
    rank: impl Fn(S, S) -> Option<(u64, S)>,
) -> Vec<S> {
    let mut nodes: Vec<Node<S>> = symbols
        .enumerate()
        .map(|(index, symbol)| Node {
            symbol,
            previous: (index as u32).wrapping_sub(1),
            next: index as u32 + 1,
            alive: true,
        })
        .collect();
    let Some(last) = nodes.last_mut() else { return Vec::new() };
    last.next = NONE;
    let mut queue = BinaryHeap::new();
    for left in 0..nodes.len() as u32 - 1 {
        offer(&nodes, left, &rank, &mut queue);
    }
    while let Some(Reverse((found, left))) = queue.pop() {
        let node = &nodes[left as usize];
        if !node.alive || node.next == NONE {
            continue;
        }
        let right = node.next;
        // The pair may have changed since it was offered: then what is there now was offered too.
        let Some((now, merged)) = rank(node.symbol, nodes[right as usize].symbol) else { continue };
        if now != found {
            continue;
        }
        let after = nodes[right as usize].next;
        nodes[right as usize].alive = false;
        nodes[left as usize].symbol = merged;
        nodes[left as usize].next = after;
        if after != NONE {
            nodes[after as usize].previous = left;
            offer(&nodes, left, &rank, &mut queue);
        }
        let before = nodes[left as usize].previous;
        if before != NONE {
            offer(&nodes, before, &rank, &mut queue);
        }
    }
    nodes.into_iter().filter(|node| node.alive).map(|node| node.symbol).collect()
}

fn offer<S: Copy>(
    nodes: &[Node<S>],
    left: u32,
    rank: &impl Fn(S, S) -> Option<(u64, S)>,
    queue: &mut BinaryHeap<Reverse<(u64, u32)>>,
) {
    let node = &nodes[left as usize];
    if node.next == NONE {
        return;
    }
    if let Some((found, _)) = rank(node.symbol, nodes[node.next as usize].symbol) {
        queue.push(Reverse((found, left)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_pair_goes_first_and_the_leftmost_of_equals() {
        // Numbers add up; only sums below 5 merge, smaller sums first.
        let rank = |a: u32, b: u32| (a + b < 5).then_some((u64::from(a + b), a + b));
        assert_eq!(merge([1, 1, 1, 1].into_iter(), rank), [4]);
        assert_eq!(merge([3, 1, 1].into_iter(), rank), [3, 2]);
        assert_eq!(merge([1, 1, 1, 1, 1].into_iter(), rank), [2, 3]);
        assert_eq!(merge([9].into_iter(), rank), [9]);
        assert_eq!(merge(std::iter::empty(), rank), []);
    }
}
