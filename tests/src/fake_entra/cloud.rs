//! The three Entra clouds: their host names and the forms of their issuers.
//!
//! Knows nothing of tenants that exist or of tokens. Sources: "National clouds"
//! (learn.microsoft.com/entra/identity-platform/authentication-national-cloud) and "Access tokens".

/// Tenant of every personal Microsoft account; the only tenant of `consumers`.
pub const CONSUMERS_TENANT: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";

/// An Entra cloud instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cloud {
    /// Worldwide.
    Public,
    /// Microsoft Azure Government.
    UsGovernment,
    /// Operated by 21Vianet.
    China,
}

impl Cloud {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Public, Self::UsGovernment, Self::China];

    /// The host name that its own documents use.
    pub fn host(self) -> &'static str {
        match self {
            Self::Public => "login.microsoftonline.com",
            Self::UsGovernment => "login.microsoftonline.us",
            Self::China => "login.partner.microsoftonline.cn",
        }
    }

    /// Every host name that it answers to.
    pub fn hosts(self) -> &'static [&'static str] {
        match self {
            Self::Public => &[
                "login.microsoftonline.com",
                "login.windows.net",
                "login.microsoft.com",
                "sts.windows.net",
            ],
            Self::UsGovernment => &["login.microsoftonline.us", "login.usgovcloudapi.net"],
            Self::China => &["login.partner.microsoftonline.cn", "login.chinacloudapi.cn"],
        }
    }

    /// The cloud that answers to this host name.
    pub fn of_host(host: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cloud| cloud.hosts().contains(&host))
    }

    /// `cloud_instance_name` in its documents and keys.
    pub fn instance_name(self) -> &'static str {
        match self {
            Self::Public => "microsoftonline.com",
            Self::UsGovernment => "microsoftonline.us",
            Self::China => "partner.microsoftonline.cn",
        }
    }

    /// Microsoft Graph's host name.
    pub fn graph_host(self) -> &'static str {
        match self {
            Self::Public => "graph.microsoft.com",
            Self::UsGovernment => "graph.microsoft.us",
            Self::China => "microsoftgraph.chinacloudapi.cn",
        }
    }

    /// The audience of federated assertions
    /// (learn.microsoft.com/entra/workload-id/workload-identity-federation-create-trust).
    pub fn exchange_audience(self) -> &'static str {
        match self {
            Self::Public => "api://AzureADTokenExchange",
            Self::UsGovernment => "api://AzureADTokenExchangeUSGov",
            Self::China => "api://AzureADTokenExchangeChina",
        }
    }

    /// Issuer of version 2.0 tokens; `tenant` may be the placeholder `{tenantid}`.
    pub fn issuer_v2(self, tenant: &str) -> String {
        format!("https://{}/{tenant}/v2.0", self.host())
    }

    /// Issuer of version 1.0 tokens, with its slash.
    pub fn issuer_v1(self, tenant: &str) -> String {
        let host = match self {
            Self::Public | Self::UsGovernment => "sts.windows.net",
            Self::China => "sts.chinacloudapi.cn",
        };
        format!("https://{host}/{tenant}/")
    }
}
