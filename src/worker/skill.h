/* A SKILL.md: "---", YAML with name and description, "---", and the text of the skill. Pure; the
 * input is whatever a repository holds. */
#ifndef MU_WORKER_SKILL_H
#define MU_WORKER_SKILL_H

#include "base/arena.h"

enum {
    MU_SKILL_NAME = 200,
    MU_SKILL_DESCRIPTION = 4096,
    MU_SKILL_PROMPT = 32 << 10,
    MU_SKILL_FRONT = 16 << 10, /* front matter that is read as YAML */
};

/* Valid UTF-8, cut to the maxima above; no control characters but line feeds and tabs, and in the
 * name not even those. */
struct mu_skill_text {
    mu_bytes name; /* that of its folder where the file says none; never empty */
    mu_bytes description, prompt;
};
/* `path`: of the file in its repository. Front matter that is no YAML is read line by line, as
 * people write it. MU_E_INVALID: no text, or nothing that could be its name; -ENOMEM. */
MU_MUST_USE int mu_skill_read(struct mu_arena *a, mu_bytes path, mu_bytes text,
                              struct mu_skill_text *ret);

#endif
