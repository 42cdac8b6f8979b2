-- Runs once for each attempt, after Envoy has chosen the provider of it. The names of the endpoint
-- come in headers, because a script cannot see the endpoint's metadata.
--
-- Attempts share the headers of the request, and what one removes the next does not have. So the
-- credentials and the path are kept in filter state, where the splice script put them, and each
-- attempt writes both anew. A credential goes to the provider under whose name it is kept.
function envoy_on_request(handle)
  local headers, info = handle:headers(), handle:streamInfo()
  local provider, base_path = headers:get("tk-provider"), headers:get("tk-base-path") or ""
  local native = headers:get("tk-native-credential")
  headers:remove("tk-provider")
  headers:remove("tk-base-path")
  headers:remove("tk-native-credential")
  -- The attempt before may have written it.
  headers:remove("x-api-key")
  local state = info:filterState()
  local credential = provider and state:get("tk-key-" .. provider)
  local path = state:get("tk-path")
  if credential == nil or path == nil then
    headers:remove("authorization")
    handle:logErr("no_credential_for " .. tostring(provider))
    handle:respond({[":status"] = "503"}, "no_credential")
    return
  end
  -- The last attempt is the one that answers: the log names its provider.
  info:dynamicMetadata():set("tollkeeper.usage", "provider", provider)
  -- A server of our own may need no key.
  if credential:match("^Bearer%s*$") then
    headers:remove("authorization")
  elseif native == "x-api-key" and path:match("^/messages") then
    -- Anthropic takes a key as Bearer at OpenAI's paths only.
    headers:remove("authorization")
    headers:replace("x-api-key", credential:match("^Bearer%s+(.+)$"))
  else
    headers:replace("authorization", credential)
  end
  headers:replace(":path", base_path .. path)
end
