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
    /// France, operated by Bleu.
    France,
    /// Germany, operated by Delos.
    Germany,
    /// Singapore's government.
    Singapore,
}

/// What is known of a cloud.
struct Facts {
    name: &'static str,
    login_host: &'static str,
    /// Further names of the login host.
    aliases: &'static [&'static str],
    instance_name: &'static str,
    /// The host of v1.0 issuers; none where it is not published.
    v1_host: Option<&'static str>,
    exchange_audience: &'static str,
}

impl Cloud {
    /// All clouds.
    pub const ALL: [Self; 6] = [
        Self::Public,
        Self::UsGovernment,
        Self::China,
        Self::France,
        Self::Germany,
        Self::Singapore,
    ];

    /// The one table. Hosts, aliases and audiences are those that Microsoft's MSAL libraries know;
    /// that keys of the newest three carry `sovcloud-identity.…` as their instance follows from the
    /// others' and has not been seen: keys that carry anything else sign for none of them.
    const fn facts(self) -> Facts {
        match self {
            Self::Public => Facts {
                name: "public",
                login_host: "login.microsoftonline.com",
                aliases: &[],
                instance_name: "microsoftonline.com",
                v1_host: Some("sts.windows.net"),
                exchange_audience: "api://AzureADTokenExchange",
            },
            Self::UsGovernment => Facts {
                name: "us-government",
                login_host: "login.microsoftonline.us",
                aliases: &[],
                instance_name: "microsoftonline.us",
                // The worldwide one.
                v1_host: Some("sts.windows.net"),
                exchange_audience: "api://AzureADTokenExchangeUSGov",
            },
            Self::China => Facts {
                name: "china",
                login_host: "login.partner.microsoftonline.cn",
                aliases: &["login.chinacloudapi.cn"],
                instance_name: "partner.microsoftonline.cn",
                v1_host: Some("sts.chinacloudapi.cn"),
                exchange_audience: "api://AzureADTokenExchangeChina",
            },
            Self::France => Facts {
                name: "france",
                login_host: "login.sovcloud-identity.fr",
                aliases: &[],
                instance_name: "sovcloud-identity.fr",
                v1_host: None,
                exchange_audience: "api://AzureADTokenExchangeFrance",
            },
            Self::Germany => Facts {
                name: "germany",
                login_host: "login.sovcloud-identity.de",
                aliases: &[],
                instance_name: "sovcloud-identity.de",
                v1_host: None,
                exchange_audience: "api://AzureADTokenExchangeGermany",
            },
            Self::Singapore => Facts {
                name: "singapore",
                login_host: "login.sovcloud-identity.sg",
                aliases: &[],
                instance_name: "sovcloud-identity.sg",
                v1_host: None,
                exchange_audience: "api://AzureADTokenExchangeGovSG",
            },
        }
    }

    /// The name in configurations.
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// The cloud of a configured name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cloud| cloud.name() == name)
    }

    /// The names in configurations, for messages: `` `public`, … or `singapore` ``.
    pub fn names() -> String {
        let names = Self::ALL.map(|cloud| format!("`{}`", cloud.name()));
        match names.split_last() {
            Some((last, others)) => format!("{} or {last}", others.join(", ")),
            None => String::new(),
        }
    }

    /// The host that issues tokens and publishes keys.
    pub fn login_host(self) -> &'static str {
        self.facts().login_host
    }

    /// The cloud of an authority host, by its name or a known alias.
    pub fn from_login_host(host: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|cloud| cloud.login_host() == host || cloud.facts().aliases.contains(&host))
    }

    /// The `cloud_instance_name` of this cloud's metadata and keys.
    pub fn instance_name(self) -> &'static str {
        self.facts().instance_name
    }

    /// The audience of tokens that are an application's federated credential
    /// (learn.microsoft.com/entra/workload-id/workload-identity-federation-config-app-trust-managed-identity).
    pub fn exchange_audience(self) -> &'static str {
        self.facts().exchange_audience
    }

    /// The issuer of v2.0 tokens: no trailing slash.
    ///
    /// With [`TENANT_TEMPLATE`] it is the issuer that keys for many tenants carry.
    pub fn v2_issuer(self, tenant: &str) -> String {
        ["https://", self.login_host(), "/", tenant, "/v2.0"].concat()
    }

    /// The issuer of v1.0 tokens: with a trailing slash. None where it is not known: then no v1.0
    /// token can be of this cloud.
    pub fn v1_issuer(self, tenant: &str) -> Option<String> {
        self.facts().v1_host.map(|host| ["https://", host, "/", tenant, "/"].concat())
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
            (Cloud::Public, "login.microsoftonline.com", Some("https://sts.windows.net/T/")),
            (Cloud::UsGovernment, "login.microsoftonline.us", Some("https://sts.windows.net/T/")),
            (
                Cloud::China,
                "login.partner.microsoftonline.cn",
                Some("https://sts.chinacloudapi.cn/T/"),
            ),
            // Not published: a guess would be an issuer that somebody else may have.
            (Cloud::France, "login.sovcloud-identity.fr", None),
            (Cloud::Germany, "login.sovcloud-identity.de", None),
            (Cloud::Singapore, "login.sovcloud-identity.sg", None),
        ];
        assert_eq!(cases.len(), Cloud::ALL.len());
        for (cloud, host, v1) in cases {
            assert_eq!(cloud.v2_issuer("T"), format!("https://{host}/T/v2.0"));
            assert_eq!(cloud.v1_issuer("T").as_deref(), v1);
        }
    }

    #[test]
    fn every_clouds_exchange_has_its_own_audience() {
        let expected = ["", "USGov", "China", "France", "Germany", "GovSG"];
        for (cloud, suffix) in Cloud::ALL.into_iter().zip(expected) {
            assert_eq!(cloud.exchange_audience(), format!("api://AzureADTokenExchange{suffix}"));
        }
    }

    #[test]
    fn messages_name_every_cloud() {
        assert_eq!(
            Cloud::names(),
            "`public`, `us-government`, `china`, `france`, `germany` or `singapore`"
        );
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
