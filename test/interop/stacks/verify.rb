# Verifies tokens with ruby-jwt, as verify.mjs does with its libraries.
require 'json'
require 'jwt'
require 'net/http'

input = JSON.parse(File.read(ARGV[0]))

# It fetches nothing: it asks a function for the key set, and again for a key that it lacks.
library = lambda do |url|
  cached = nil
  loader = lambda do |options|
    cached = nil if options[:kid_not_found]
    cached ||= JSON.parse(Net::HTTP.get(URI(url)))
  end
  lambda do |token|
    JWT.decode(token, nil, true, algorithms: input['algorithms'], jwks: loader,
               iss: input['issuer'], verify_iss: true, aud: input['audience'], verify_aud: true)
  end
end

attempt = lambda do |&f|
  begin
    f.call
    ''
  rescue StandardError, NotImplementedError => e
    "#{e.class}: #{e.message}"
  end
end

base = input['base']
early = attempt.call { library.call("#{base}/keys/ES256").call(input['early']) } # it is not early for long
result = { version: Gem::Specification.find_by_name('jwt').version.to_s, early: early, alone: {}, mixed: {} }
input['algorithms'].each do |alg|
  result[:alone][alg] = attempt.call { library.call("#{base}/keys/#{alg}").call(input['tokens'][alg]) }
  result[:mixed][alg] = attempt.call { library.call("#{base}/keys/mixed").call(input['tokens'][alg]) }
end
verify = library.call("#{base}/keys/rotating/ruby")
result[:before] = attempt.call { verify.call(input['tokens']['ES256']) }
result[:unknown] = attempt.call { verify.call(input['next']) }
Net::HTTP.get(URI("#{base}/rotate/ruby"))
result[:next] = attempt.call { verify.call(input['next']) }
%w[late tampered foreign elsewhere].each do |what|
  result[what] = attempt.call { library.call("#{base}/keys/ES256").call(input[what]) }
end
puts JSON.generate('ruby-jwt' => result)
