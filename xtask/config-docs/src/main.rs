//! Prints `docs/configuration.md`: every key that a person may write, from the types that read
//! them and their comments. `cargo xtask docs` writes it, `cargo xtask check` compares it.

mod keys;

use policy::config::raw::{RawInbound, RawOutbound};
use schemars::{JsonSchema, schema_for};
use token_broker::config::raw::RawConfig;

use crate::keys::keys;

const HEAD: &str = "\
# Configuration

Every key, from the types that read them; written by `cargo xtask docs`, not by hand. A key that is
not here does not exist: it is refused as unknown. Errors are reported all at once, each with its
path as in the tables; `[]` stands for an element of a list, `<name>` for a name of your choice.
";

fn main() {
    println!("{HEAD}");
    section::<RawInbound>(
        "The filter, inbound",
        "The plugin's configuration in Envoy (`configuration` of the wasm filter): a JSON object.",
    );
    section::<RawOutbound>(
        "The filter, outbound",
        "The plugin's configuration in the upstream position of a cluster (or of every cluster).",
    );
    section::<RawConfig>(
        "The token broker",
        "A YAML file, named by `token-broker serve --config FILE`; `token-broker check --config \
         FILE` reports what is wrong with it. With only the variables of Azure workload identity \
         set it needs no file, nor with those of Microsoft's auth sidecar (`docs/compat.md`).",
    );
}

fn section<T: JsonSchema>(title: &str, place: &str) {
    println!("## {title}\n\n{place}\n\n| key | value | |\n|---|---|---|");
    for key in keys(schema_for!(T).as_value()) {
        let text = key.text.replace('|', "\\|");
        println!("| `{}` | {} | {text} |", key.path, key.value);
    }
    println!();
}
