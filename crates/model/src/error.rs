/// Why a header does not describe a model that can run here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    #[error("the architecture '{found}' is not supported; supported are: {supported}")]
    UnknownArchitecture { found: String, supported: String },
    #[error("the file lacks the metadata '{0}'")]
    MissingKey(String),
    #[error("the metadata '{key}' is {value}, which is outside {allowed}")]
    BadValue { key: String, value: String, allowed: &'static str },
    #[error("the file lacks the tensor '{0}'")]
    MissingTensor(String),
    #[error("the tensor '{name}' has the shape {found:?} where {expected:?} is needed")]
    BadShape { name: String, found: Vec<u64>, expected: Vec<u64> },
    #[error("the tensor '{name}' is of type {ty}, which cannot be used there")]
    BadType { name: String, ty: quant::GgmlType },
    #[error("{0}")]
    Unsupported(String),
    #[error("the sizes in the file overflow")]
    Overflow,
}
