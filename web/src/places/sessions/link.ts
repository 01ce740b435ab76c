/** Where a session is shown; every link to one goes through here. */
export const sessionLink = (id: string) => ({ to: "/sessions/$id", params: { id } }) as const;
/** Beside the list. */
export const peekLink = (id: string) => ({ to: "/sessions", search: { open: id } }) as const;
