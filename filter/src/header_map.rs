//! Header maps as the ABI writes them: count, sizes, then names and values, each ended by NUL.

/// A map of headers as the host serialised it: names and values are read in place.
pub(crate) struct HeaderMap(Vec<u8>);

impl HeaderMap {
    /// As the host wrote it, if all of it can be read: a line that is not seen is not removed.
    pub(crate) fn new(bytes: Vec<u8>) -> Option<Self> {
        let map = Self(bytes);
        (map.lines().count() == map.number(0).unwrap_or(0)).then_some(map)
    }

    /// The lines in order. What does not fit together ends the iteration.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let count = self.number(0).unwrap_or(0);
        let mut sizes = 4_usize;
        let mut text = count.saturating_mul(8).saturating_add(4);
        (0..count).map_while(move |_| {
            let name_size = self.number(sizes)?;
            let value_size = self.number(sizes.checked_add(4)?)?;
            sizes = sizes.checked_add(8)?;
            let name_end = text.checked_add(name_size)?;
            let value = name_end.checked_add(1)?;
            let value_end = value.checked_add(value_size)?;
            let line = (self.0.get(text..name_end)?, self.0.get(value..value_end)?);
            text = value_end.checked_add(1)?;
            Some(line)
        })
    }

    fn number(&self, at: usize) -> Option<usize> {
        let bytes = self.0.get(at..at.checked_add(4)?)?;
        usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
    }

    /// The first value of a name.
    pub(crate) fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.lines().find(|(line, _)| *line == name).map(|(_, value)| value)
    }
}

/// A header map as the ABI wants it: count, sizes, then names and values ended by NUL.
pub(crate) fn serialized(headers: &[(&str, &str)]) -> Vec<u8> {
    let size = |text: &str| u32::try_from(text.len()).unwrap_or(0).to_le_bytes();
    let mut bytes = u32::try_from(headers.len()).unwrap_or(0).to_le_bytes().to_vec();
    for (name, value) in headers {
        bytes.extend(size(name));
        bytes.extend(size(value));
    }
    for (name, value) in headers {
        for text in [name, value] {
            bytes.extend(text.as_bytes());
            bytes.push(0);
        }
    }
    bytes
}
