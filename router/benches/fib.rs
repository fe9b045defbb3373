//! How long a lookup takes, beside a flat table of the same content: `cargo bench -p router --bench fib [routes...]`.

fn main() {
    let routes: Vec<usize> = std::env::args().filter_map(|a| a.parse().ok()).collect();
    let routes = if routes.is_empty() { vec![1000, 10_000, 1_000_000] } else { routes };
    for row in router::route::bench::run(&routes) {
        println!("{row}");
    }
}
