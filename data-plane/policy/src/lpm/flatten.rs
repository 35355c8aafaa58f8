//! Overlapping ranges to disjoint segments: the smaller range wins.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap},
};

use super::Key;

/// Overlaps reported for one table; a document with more has said enough.
pub(crate) const OVERLAPS_MAX: usize = 100;

/// Addresses `start..=end` have `value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range<K> {
    pub start: K,
    pub end: K,
    pub value: u32,
}

/// Two ranges of equal size that overlap, as indexes into the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overlap {
    pub first: usize,
    pub second: usize,
}

/// From `start` up to the next segment the answer is `value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment<K> {
    pub(super) start: K,
    pub(super) value: u32,
}

/// Segments in order, neighbours with different values, the first one at the first address;
/// `none` where no range is.
pub(super) fn flatten<K: Key>(
    ranges: &[Range<K>],
    none: u32,
) -> Result<Vec<Segment<K>>, Vec<Overlap>> {
    let mut order: Vec<usize> = (0..ranges.len()).collect();
    order.sort_by_key(|&index| (ranges[index].start, index));
    let mut arrivals = order.into_iter().peekable();

    // Ranges that contain the current position: by size to find the winner, by end to find the
    // next one to leave.
    let mut active: BTreeSet<(u128, usize)> = BTreeSet::new();
    let mut leaving: BinaryHeap<Reverse<(K, usize)>> = BinaryHeap::new();
    let mut overlaps = Vec::new();
    let mut segments = vec![Segment { start: K::MIN, value: none }];

    loop {
        // The next position where something changes: behind the end of an active range, or at the
        // start of the next one.
        let leave = leaving.peek().map(|Reverse((end, _))| *end);
        let arrive = arrivals.peek().map(|&index| ranges[index].start);
        let position = match (leave, arrive) {
            (None, None) => break,
            (Some(end), Some(start)) if start <= end => start,
            (None, Some(start)) => start,
            (Some(end), _) => match end.next() {
                Some(position) => position,
                None => break,
            },
        };
        while let Some(&Reverse((end, index))) = leaving.peek()
            && end < position
        {
            leaving.pop();
            active.remove(&(size(&ranges[index]), index));
        }
        while let Some(index) = arrivals.next_if(|&index| ranges[index].start == position) {
            let range = &ranges[index];
            let size = size(range);
            for &(_, other) in active.range((size, 0)..=(size, usize::MAX)) {
                if overlaps.len() < OVERLAPS_MAX {
                    overlaps.push(Overlap { first: other.min(index), second: other.max(index) });
                }
            }
            active.insert((size, index));
            leaving.push(Reverse((range.end, index)));
        }
        let value = active.first().map_or(none, |&(_, index)| ranges[index].value);
        push(&mut segments, Segment { start: position, value });
    }
    if overlaps.is_empty() {
        segments.shrink_to_fit();
        Ok(segments)
    } else {
        Err(overlaps)
    }
}

fn push<K: Key>(segments: &mut Vec<Segment<K>>, segment: Segment<K>) {
    if let Some(last) = segments.last_mut() {
        if last.value == segment.value {
            return;
        }
        if last.start == segment.start {
            // Only the first segment can be replaced: positions grow.
            last.value = segment.value;
            return;
        }
    }
    segments.push(segment);
}

fn size<K: Key>(range: &Range<K>) -> u128 {
    range.end.distance(range.start)
}
