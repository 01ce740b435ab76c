#ifndef MU_PROTO_REDACT_INT_H
#define MU_PROTO_REDACT_INT_H

#include "proto/redact.h"

/* One form of a value; too short ones are left out. */
MU_MUST_USE int mu_redact_put(struct mu_redact *r, unsigned name, mu_bytes form);
/* redact_forms.c: all forms of one line but the line itself. */
MU_MUST_USE int mu_redact_forms(struct mu_redact *r, unsigned name, mu_bytes line);
MU_MUST_USE int mu_redact_base64(struct mu_redact *r, unsigned name, mu_bytes value);

#endif
