# The settings of docs/resource-servers.md, as settings.mjs has them for its libraries.
require 'json'
require 'jwt'
require 'net/http'

input = JSON.parse(File.read(ARGV[0]))
issuer, audience, key_set_url = input.values_at('issuer', 'audience', 'plain')

cached = nil
keys = lambda do |options|
  cached = nil if options[:kid_not_found] # wait a minute between two of them
  cached ||= JSON.parse(Net::HTTP.get(URI(key_set_url)))
end
verify = lambda do |token|
  claims, header = JWT.decode(token, nil, true, jwks: keys, algorithms: ['ES256'], leeway: 5, required_claims: %w[exp sub],
                              iss: issuer, verify_iss: true, aud: audience, verify_aud: true)
  raise JWT::DecodeError, 'no access token' unless header['typ'] == 'at+jwt'
  claims
end

results = input['tokens'].transform_values do |token|
  verify.call(token)
  ''
rescue StandardError, NotImplementedError => e
  "#{e.class}: #{e.message}"
end
puts JSON.generate('ruby-jwt' => results)
