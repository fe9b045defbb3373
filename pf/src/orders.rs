//! All orders in which several actors can take their steps, one after the other, for tests of what they do to each other.

/// Runs every order there is. `run` asks again and again which of so many goes on, until none can. Says how many there were.
pub(crate) fn every(mut run: impl FnMut(&mut dyn FnMut(usize) -> usize)) -> u32 {
    let mut path: Vec<(usize, usize)> = Vec::new();
    let mut orders = 0;
    loop {
        let mut depth = 0;
        run(&mut |ready| {
            if depth == path.len() {
                path.push((0, ready));
            }
            depth += 1;
            path[depth - 1].0
        });
        orders += 1;
        while path.last().is_some_and(|(choice, of)| choice + 1 == *of) {
            path.pop();
        }
        let Some((choice, _)) = path.last_mut() else { return orders };
        *choice += 1;
    }
}
