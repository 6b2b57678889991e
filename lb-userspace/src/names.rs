//! What to say after a name that nobody knows.

/// Names that are told when one is unknown and none is like it.
const TOLD_NAMES: usize = 12;

/// The end of a sentence about an unknown name: the one that was perhaps meant, or those there are.
pub(crate) fn instead<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> String {
    let known: Vec<&str> = known.collect();
    // Typing mistakes: letters that are missing, wrong, too many or swapped.
    let mistakes = |other: &str| strsim::osa_distance(name, other);
    let nearest = known.iter().copied().min_by_key(|other| mistakes(other));
    match (nearest, known.len().saturating_sub(TOLD_NAMES)) {
        (None, _) => ", nor any other".to_owned(),
        (Some(nearest), _) if mistakes(nearest) <= name.len().div_ceil(4) => {
            format!("; did you mean {nearest}?")
        }
        (_, 0) => format!("; there are: {}", known.join(", ")),
        (_, more) => format!("; there are: {} and {more} more", known[..TOLD_NAMES].join(", ")),
    }
}
