//! After the story: commands to type, with tokens that stay fresh, until Ctrl-C.

use std::{fs::Permissions, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use e2e::stack::{
    Stack,
    world::{application, user},
};

/// How often the token files are written again; their tokens live for an hour.
const REWRITE: Duration = Duration::from_secs(20 * 60);

/// Prints the commands and keeps the tokens fresh, for ever.
pub(crate) async fn stay_up(stack: &Stack) {
    let folder = stack.directory();
    write_tokens(stack, folder);
    let shown = folder.display();
    let (inbound, outbound) = (stack.envoy.inbound, stack.envoy.outbound);
    let admin = stack.envoy.admin;
    println!(
        "
It stays up until Ctrl-C. Try it (the files hold fresh tokens):
  curl -i http://{inbound}/orders/7
  curl -i http://{inbound}/orders/7 -H \"Authorization: Bearer $(cat {shown}/user.token)\"
  curl -i http://{inbound}/orders/7/pay -d '{{}}' -H \"Authorization: Bearer $(cat {shown}/user.token)\"
  curl -i http://{inbound}/orders/7/pay -d '{{}}' -H \"Authorization: Bearer $(cat {shown}/till.token)\"
  curl -i http://{outbound}/v1.0/users -H 'Host: graph.microsoft.com'
  curl -s 'http://{admin}/stats?filter=entra'
  tail -f {shown}/envoy.out     # the access log, with the reason of each decision"
    );
    for name in ["admin", "inbound", "outbound"] {
        let (port, used) = (stack.shipped_port(name), stack.port(name));
        if port != used {
            println!("Port {port} of envoy.yaml ({name}) was taken: {used} instead.");
        }
    }
    loop {
        tokio::time::sleep(REWRITE).await;
        write_tokens(stack, folder);
    }
}

fn write_tokens(stack: &Stack, folder: &Path) {
    let tokens = [
        ("user.token", user(&stack.entra, &["Orders.Read"]).sign()),
        ("till.token", application(&stack.entra, &["Orders.Pay.All"]).sign()),
    ];
    for (name, token) in tokens {
        let file = folder.join(name);
        std::fs::write(&file, token).expect("a file for a token");
        std::fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("its permissions");
    }
}
