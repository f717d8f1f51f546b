//! APIs of Microsoft's whose host and scope follow from a name, in each cloud.
//!
//! Hosts and resources are in learn.microsoft.com/azure/azure-government under
//! compare-azure-government-global-azure, in learn.microsoft.com/azure/china under
//! resources-developer-guide, and for Graph in learn.microsoft.com/graph/deployments.

use policy::cloud::Cloud;

/// What is known by its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Graph,
    KeyVault,
    Storage,
}

/// The parts of a storage account.
pub(super) const STORAGE_SERVICES: [&str; 5] = ["blob", "queue", "table", "file", "dfs"];

impl Kind {
    pub(super) fn from_name(name: &str) -> Option<Self> {
        match name {
            "graph" => Some(Self::Graph),
            "key_vault" => Some(Self::KeyVault),
            "storage" => Some(Self::Storage),
            _ => None,
        }
    }

    /// The host, of the account where the kind has accounts; none where this cloud's is not known.
    pub(super) fn host(self, cloud: Cloud, account: &str, service: &str) -> Option<String> {
        Some(match self {
            Self::Graph => graph(cloud).to_owned(),
            Self::KeyVault => format!("{account}.{}", vaults(cloud)?),
            Self::Storage => format!("{account}.{service}.{}", storage(cloud)?),
        })
    }

    /// The scope that its tokens have unless another is written; none where this cloud's is not
    /// known.
    pub(super) fn scope(self, cloud: Cloud) -> Option<String> {
        Some(match self {
            Self::Graph => format!("https://{}/.default", graph(cloud)),
            Self::KeyVault => format!("https://{}/.default", vaults(cloud)?),
            // One resource in all clouds whose storage is known.
            Self::Storage => {
                storage(cloud).map(|_| "https://storage.azure.com/.default".to_owned())?
            }
        })
    }

    /// Whether this can be the name of one's own: vaults have 3 to 24 letters, digits and single
    /// hyphens, and begin with a letter; storage accounts 3 to 24 letters and digits.
    pub(super) fn is_account(self, name: &str) -> bool {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let length = (3..=24).contains(&name.len());
        match self {
            Self::Graph => false,
            Self::KeyVault => {
                length
                    && name.starts_with(|first: char| first.is_ascii_lowercase())
                    && !name.ends_with('-')
                    && !name.contains("--")
                    && name.bytes().all(|byte| plain(byte) || byte == b'-')
            }
            Self::Storage => length && name.bytes().all(plain),
        }
    }
}

/// As Microsoft's PowerShell module for Graph has them.
fn graph(cloud: Cloud) -> &'static str {
    match cloud {
        Cloud::Public => "graph.microsoft.com",
        Cloud::UsGovernment => "graph.microsoft.us",
        Cloud::China => "microsoftgraph.chinacloudapi.cn",
        Cloud::France => "graph.svc.sovcloud.fr",
        Cloud::Germany => "graph.svc.sovcloud.de",
        Cloud::Singapore => "graph.svc.sovcloud.sg",
    }
}

fn vaults(cloud: Cloud) -> Option<&'static str> {
    match cloud {
        Cloud::Public => Some("vault.azure.net"),
        Cloud::UsGovernment => Some("vault.usgovcloudapi.net"),
        Cloud::China => Some("vault.azure.cn"),
        Cloud::France | Cloud::Germany | Cloud::Singapore => None,
    }
}

fn storage(cloud: Cloud) -> Option<&'static str> {
    match cloud {
        Cloud::Public => Some("core.windows.net"),
        Cloud::UsGovernment => Some("core.usgovcloudapi.net"),
        Cloud::China => Some("core.chinacloudapi.cn"),
        Cloud::France | Cloud::Germany | Cloud::Singapore => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cloud_has_its_own_hosts() {
        for (cloud, graph, vault, storage) in [
            (
                Cloud::Public,
                "graph.microsoft.com",
                "acc.vault.azure.net",
                "acc.queue.core.windows.net",
            ),
            (
                Cloud::UsGovernment,
                "graph.microsoft.us",
                "acc.vault.usgovcloudapi.net",
                "acc.queue.core.usgovcloudapi.net",
            ),
            (
                Cloud::China,
                "microsoftgraph.chinacloudapi.cn",
                "acc.vault.azure.cn",
                "acc.queue.core.chinacloudapi.cn",
            ),
        ] {
            let host = |kind: Kind| kind.host(cloud, "acc", "queue").unwrap();
            let scope = |kind: Kind| kind.scope(cloud).unwrap();
            assert_eq!(host(Kind::Graph), graph);
            assert_eq!(host(Kind::KeyVault), vault);
            assert_eq!(host(Kind::Storage), storage);
            assert_eq!(scope(Kind::Graph), format!("https://{graph}/.default"));
            let vaults = vault.trim_start_matches("acc.");
            assert_eq!(scope(Kind::KeyVault), format!("https://{vaults}/.default"));
            assert_eq!(scope(Kind::Storage), "https://storage.azure.com/.default");
        }
    }

    #[test]
    fn no_host_is_guessed_in_a_cloud_whose_hosts_are_not_known() {
        for (cloud, top) in
            [(Cloud::France, "fr"), (Cloud::Germany, "de"), (Cloud::Singapore, "sg")]
        {
            let graph = format!("graph.svc.sovcloud.{top}");
            assert_eq!(Kind::Graph.host(cloud, "", ""), Some(graph));
            for kind in [Kind::KeyVault, Kind::Storage] {
                assert_eq!(kind.host(cloud, "acc", "blob"), None);
                assert_eq!(kind.scope(cloud), None);
            }
        }
    }

    #[test]
    fn accounts_are_named_as_azure_names_them() {
        for good in ["abc", "a-b-c1", "abcdefghijklmnopqrstuvwx"] {
            assert!(Kind::KeyVault.is_account(good), "{good}");
        }
        for bad in ["ab", "1abc", "abc-", "a--b", "Abc", "a.b", "abcdefghijklmnopqrstuvwxy", "a_b"]
        {
            assert!(!Kind::KeyVault.is_account(bad), "{bad}");
        }
        for good in ["abc", "1ab", "abcdefghijklmnopqrstuvwx"] {
            assert!(Kind::Storage.is_account(good), "{good}");
        }
        for bad in ["ab", "a-b", "Abc", "a.b", "abcdefghijklmnopqrstuvwxy"] {
            assert!(!Kind::Storage.is_account(bad), "{bad}");
        }
        assert!(!Kind::Graph.is_account("abc"));
    }
}
