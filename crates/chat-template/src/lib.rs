//! Messages to prompt through the model's Jinja template; reasoning split from answers.
