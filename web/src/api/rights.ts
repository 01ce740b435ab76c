import { useQuery } from "@tanstack/react-query";
import { type Caller, loginQuery } from "./auth";

/** What the server lets this caller do; what it would refuse is not offered. */
export function rightsOf(user: Caller | null | undefined) {
  const role = user?.role;
  const admin = user?.admin ?? false;
  return { admin, orgAdmin: admin || role === "admin", write: admin || role === "admin" || role === "operator" };
}

export function useRights() {
  const { data } = useQuery(loginQuery);
  return { ...rightsOf(data?.user), user: data?.user ?? null };
}
