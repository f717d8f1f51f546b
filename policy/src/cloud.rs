//! The clouds of Microsoft Entra ID: their hosts, and the issuers of their tokens.
//!
//! Every fact about an Entra host name is here and nowhere else.

/// Stands for the tenant's id in the issuer of keys that sign for many tenants.
pub const TENANT_TEMPLATE: &str = "{tenantid}";

/// The authority whose tokens may come from any Entra tenant.
pub const ORGANIZATIONS: &str = "organizations";

/// A cloud instance of Microsoft Entra ID
/// (learn.microsoft.com/entra/identity-platform/authentication-national-cloud).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Cloud {
    /// The worldwide cloud.
    #[default]
    Public,
    /// US government (GCC High, DoD).
    UsGovernment,
    /// China, operated by 21Vianet.
    China,
}

impl Cloud {
    /// All clouds.
    pub const ALL: [Self; 3] = [Self::Public, Self::UsGovernment, Self::China];

    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::UsGovernment => "us-government",
            Self::China => "china",
        }
    }

    /// The cloud of a configured name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cloud| cloud.name() == name)
    }

    /// The host that issues tokens and publishes keys.
    pub fn login_host(self) -> &'static str {
        match self {
            Self::Public => "login.microsoftonline.com",
            Self::UsGovernment => "login.microsoftonline.us",
            Self::China => "login.partner.microsoftonline.cn",
        }
    }

    /// The cloud of an authority host, by its name or a known alias.
    pub fn from_login_host(host: &str) -> Option<Self> {
        match host {
            "login.chinacloudapi.cn" => Some(Self::China),
            host => Self::ALL.into_iter().find(|cloud| cloud.login_host() == host),
        }
    }

    /// The `cloud_instance_name` of this cloud's metadata and keys.
    pub fn instance_name(self) -> &'static str {
        match self {
            Self::Public => "microsoftonline.com",
            Self::UsGovernment => "microsoftonline.us",
            Self::China => "partner.microsoftonline.cn",
        }
    }

    /// The issuer of v2.0 tokens: no trailing slash.
    ///
    /// With [`TENANT_TEMPLATE`] it is the issuer that keys for many tenants carry.
    pub fn v2_issuer(self, tenant: &str) -> String {
        ["https://", self.login_host(), "/", tenant, "/v2.0"].concat()
    }

    /// The issuer of v1.0 tokens: with a trailing slash. US government tokens are issued by the
    /// worldwide host.
    pub fn v1_issuer(self, tenant: &str) -> String {
        let host = match self {
            Self::Public | Self::UsGovernment => "sts.windows.net",
            Self::China => "sts.chinacloudapi.cn",
        };
        ["https://", host, "/", tenant, "/"].concat()
    }

    /// The issuer by which filter and broker name an authority: a tenant's, or the template for
    /// `organizations`.
    pub fn authority_issuer(self, tenant: &str) -> String {
        self.v2_issuer(if tenant == ORGANIZATIONS { TENANT_TEMPLATE } else { tenant })
    }

    /// Where a client starts to get a token for the caller of this API (RFC 6750 §3, and
    /// learn.microsoft.com/entra/identity-platform/claims-challenge).
    pub fn authorization_uri(self, tenant: &str) -> String {
        format!("https://{}/{tenant}/oauth2/v2.0/authorize", self.login_host())
    }
}

/// Whether this is a tenant id as tokens carry it: a GUID in lower case.
///
/// Upper case is refused rather than folded: Entra issues lower case, and exact comparison is
/// what the rest relies on.
pub fn is_tenant_id(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";

    #[test]
    fn issuers_have_entras_exact_forms() {
        let cases = [
            (
                Cloud::Public,
                "https://login.microsoftonline.com/T/v2.0",
                "https://sts.windows.net/T/",
            ),
            (
                Cloud::UsGovernment,
                "https://login.microsoftonline.us/T/v2.0",
                "https://sts.windows.net/T/",
            ),
            (
                Cloud::China,
                "https://login.partner.microsoftonline.cn/T/v2.0",
                "https://sts.chinacloudapi.cn/T/",
            ),
        ];
        for (cloud, v2, v1) in cases {
            assert_eq!(cloud.v2_issuer("T"), v2);
            assert_eq!(cloud.v1_issuer("T"), v1);
        }
    }

    #[test]
    fn clouds_are_found_by_their_names_and_hosts_only() {
        for cloud in Cloud::ALL {
            assert_eq!(Cloud::from_name(cloud.name()), Some(cloud));
            assert_eq!(Cloud::from_login_host(cloud.login_host()), Some(cloud));
            assert!(cloud.login_host().ends_with(cloud.instance_name()));
            assert!(cloud.authorization_uri(TENANT).contains(cloud.login_host()));
        }
        assert_eq!(Cloud::from_login_host("login.chinacloudapi.cn"), Some(Cloud::China));
        assert_eq!(Cloud::from_login_host("login.microsoftonline.com.evil.example"), None);
        assert_eq!(Cloud::from_name("Public"), None);
    }

    #[test]
    fn the_authority_of_organizations_is_the_template() {
        assert_eq!(
            Cloud::Public.authority_issuer("organizations"),
            "https://login.microsoftonline.com/{tenantid}/v2.0"
        );
        assert_eq!(Cloud::Public.authority_issuer(TENANT), Cloud::Public.v2_issuer(TENANT));
    }

    #[test]
    fn tenant_ids_are_lower_case_guids() {
        assert!(is_tenant_id(TENANT));
        for bad in [
            "",
            "72F988BF-86f1-41af-91ab-2d7cd011db47",
            "72f988bf086f1041af091ab02d7cd011db47",
            "72f988bf-86f1-41af-91ab-2d7cd011db4",
            "72f988bf-86f1-41af-91ab-2d7cd011db477",
            "72f988bg-86f1-41af-91ab-2d7cd011db47",
            "organizations",
        ] {
            assert!(!is_tenant_id(bad), "{bad}");
        }
    }
}
